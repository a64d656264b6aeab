/** Several ranks of a command: started here, or joined by a process that a launcher has started. */
import { join } from "node:path";
import { Console, Effect, Fiber, Stream } from "effect";
import type { Config } from "../../pipeline/pretrain/config.ts";
import { launchedAs, launcherSettings } from "../../pipeline/ranks/launch.ts";
import { MpiMissingError } from "../../pipeline/ranks/mpi_library.ts";
import { UsageError } from "../flags/usage_error.ts";
import { launcherReport } from "./launcher_report.ts";

const environment = (name: string) => Deno.env.get(name);

/** The rank that this process was started as; null where it is the only one, or the one that starts others. */
export const ownRank = launchedAs(environment)?.rank ?? null;

/** Whether this process is to start the ranks that it is asked for. Fails where a launcher has started others. */
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
 * Runs this very command as so many ranks on this machine, by `mpirun`. Its exit status becomes that of this process; if a
 * rank ended badly, that is said in a sentence. An interruption asks all ranks to stop, and waits until they have.
 */
export const startRanks = Effect.fn("startRanks")(function* (ranks: number) {
  const { code } = yield* runAsRanks(ranks, "inherit");
  Deno.exitCode = code;
});

/** What the ranks of this very command print, and its exit status; all else is as in `startRanks`. */
export const askRanks = (ranks: number) => runAsRanks(ranks, "piped");

const runAsRanks = Effect.fn("runAsRanks")(function* (
  ranks: number,
  stdout: "inherit" | "piped",
) {
  const { stdout: version } = yield* Effect.tryPromise({
    try: () => new Deno.Command("mpirun", { args: ["--version"] }).output(),
    catch: () => new MpiMissingError({ reason: "there is no mpirun here" }),
  });
  // What a launcher hands on to the ranks: Open MPI answers SIGINT by killing them, MPICH SIGUSR2.
  const stop = /Open MPI/.test(new TextDecoder().decode(version)) ? "SIGUSR2" : "SIGINT";
  const child = new Deno.Command("mpirun", {
    args: ["-n", String(ranks), join(import.meta.dirname!, "../slotcon"), ...Deno.args],
    env: launcherSettings,
    stdin: "null",
    stdout,
    stderr: "piped",
    detached: true, // a Ctrl-C on the terminal is for us alone
  }).spawn();
  const report = launcherReport();
  const printed = stdout === "piped" ? new Response(child.stdout).text() : Promise.resolve("");
  const running = yield* Effect.forkChild(
    Stream.fromReadableStream({ evaluate: () => child.stderr, onError: (error) => error as Error }).pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.runForEach((line) => Effect.forEach(report.lines(line), (text) => Console.error(text))),
      Effect.ignore,
      Effect.andThen(Effect.promise(() => child.status)),
    ),
  );
  const { code } = yield* Fiber.join(running).pipe(
    Effect.onInterrupt(() =>
      Effect.gen(function* () {
        Deno.addSignalListener("SIGINT", () => send(child, "SIGTERM")); // who asks twice does not want to wait
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
    // it has ended already
  }
};
