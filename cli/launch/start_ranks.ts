/** Starts several ranks of a command on this machine, by `mpirun`. */
import { join } from "node:path";
import { Console, Effect, Fiber, Stream } from "effect";
import type { Config } from "../../pipeline/pretrain/config.ts";
import { launchedAs, launcherSettings, STDIN_OF_LAUNCHER } from "../../pipeline/ranks/launch.ts";
import { MpiMissingError } from "../../pipeline/ranks/mpi_library.ts";
import { UsageError } from "../flags/usage_error.ts";
import { doingNow } from "../terminal/doing.ts";
import { launcherReport } from "./launcher_report.ts";

const environment = (name: string) => Deno.env.get(name);

/** The rank of this process; null where it is the only one, or the one that starts ranks. */
export const ownRank = launchedAs(environment)?.rank ?? null;

/** Whether this process has to start ranks. Fails where a launcher has started another number of them than --ranks asks for. */
export const startsRanks = Effect.fnUntraced(function* ({ ranks }: Pick<Config, "ranks">) {
  const launch = launchedAs(environment);
  if (launch !== null && ranks > 1 && ranks !== launch.world) {
    return yield* new UsageError({
      subject: "--ranks",
      reason: `expected the ${launch.world} that ${launch.by} has started, or nothing, found ${ranks}`,
    });
  }
  return ranks > 1 && launch === null;
});

/**
 * Runs the command of this process as `ranks` ranks. Their exit status becomes that of this process; a sentence on standard
 * error says which rank failed. An interruption asks all ranks to stop, and waits until they have.
 */
export const startRanks = Effect.fn("startRanks")(function* (ranks: number) {
  const { code } = yield* runAsRanks(ranks, "inherit");
  Deno.exitCode = code;
});

/** Runs the command of this process as `ranks` ranks; what they print, and their exit status. */
export const askRanks = (ranks: number) => runAsRanks(ranks, "piped");

const runAsRanks = Effect.fn("runAsRanks")(function* (
  ranks: number,
  stdout: "inherit" | "piped",
) {
  const { stdout: version } = yield* Effect.tryPromise({
    try: () => new Deno.Command("mpirun", { args: ["--version"] }).output(),
    catch: () => new MpiMissingError({ reason: "there is no mpirun here" }),
  });
  // The signal that a launcher forwards to its ranks: Open MPI kills them at SIGINT, MPICH at SIGUSR2.
  const stop = /Open MPI/.test(new TextDecoder().decode(version)) ? "SIGUSR2" : "SIGINT";
  const child = new Deno.Command("mpirun", {
    args: ["-n", String(ranks), join(import.meta.dirname!, "../slotcon"), ...Deno.args],
    env: { ...launcherSettings, [STDIN_OF_LAUNCHER]: "yes" },
    stdin: "piped", // nothing is written: it ends when this process does, however it ends, and then so does rank 0
    stdout,
    stderr: "piped",
    detached: true, // Ctrl-C on the terminal reaches this process alone
  }).spawn();
  const report = launcherReport();
  yield* doingNow(`Starting ${ranks} ranks`); // until they say something themselves
  const printed = stdout === "piped" ? new Response(child.stdout).text() : Promise.resolve("");
  const running = yield* Effect.forkChild(
    Stream.fromReadableStream({ evaluate: () => child.stderr, onError: (error) => error as Error }).pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.tap(() => doingNow("")),
      Stream.runForEach((line) => Effect.forEach(report.lines(line), (text) => Console.error(text))),
      Effect.ignore,
      Effect.andThen(Effect.promise(() => child.status)),
    ),
  );
  const { code } = yield* Fiber.join(running).pipe(
    Effect.onInterrupt(() =>
      Effect.gen(function* () {
        Deno.addSignalListener("SIGINT", () => send(child, "SIGTERM")); // a second Ctrl-C kills the ranks
        send(child, stop);
        yield* Fiber.await(running);
      })
    ),
  );
  const culprit = report.culprit();
  if (code !== 0 && culprit !== null) yield* Console.error(`slotcon: ${culprit}`);
  return { code, printed: yield* Effect.promise(() => printed) };
});

const send = (child: Deno.ChildProcess, signal: Deno.Signal) => {
  try {
    child.kill(signal);
  } catch {
    // it has already ended
  }
};
