/** The command line, which main.ts starts. */
import process from "node:process";
import * as NodeRuntime from "@effect/platform-node/NodeRuntime";
import * as NodeServices from "@effect/platform-node/NodeServices";
import { Console, Effect, Layer, Runtime } from "effect";
import { CliConfig, CliOutput, Command, GlobalFlag } from "effect/cli";
import project from "../deno.json" with { type: "json" };
import { layerTuned } from "../pipeline/run/tuned_kernels.ts";
import { commands } from "./commands.ts";
import { expectNoneEmpty } from "./flags/usage_error.ts";
import { ownRank } from "./launch/start_ranks.ts";
import { explain, explainUsage } from "./terminal/explain.ts";
import { terminalText } from "./terminal/terminal_text.ts";
import { voice } from "./terminal/voice.ts";

const slotcon = Command.make("slotcon").pipe(
  Command.withDescription(
    "Self-supervised visual representation learning with semantic grouping, on any WebGPU adapter",
  ),
  Command.withSubcommands(Object.values(commands)),
);

/** Explains a wrong command line in a sentence and refers to the help, in place of printing it. */
const presenter: CliOutput.Presenter = {
  present: (event) => {
    if (event._tag !== "InvalidInvocation") {
      return Effect.provideService(CliOutput.defaultPresenter.present(event), Console.Console, forHelp);
    }
    const sentences = event.errors.map((error) => `slotcon: ${explainUsage(error)}\n`);
    return Console.error(`${sentences.join("")}See ${event.commandPath.join(" ")} --help`);
  },
};

/**
 * The console does not end a command that has hours of work behind it: what cannot be written, as onto a full disk, is
 * lost, and the exit status says so in the end. Nobody misses what a reader that is gone does not get.
 */
let lost: string | null = null;
type Print = (...words: unknown[]) => void;
const forgiving = (print: Print): Print => (...words) => {
  voice.heard();
  try {
    print(...words);
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) lost ??= (error as Error).message;
  }
};
/** The console for the help, whose texts are this project's own and have their colours from elsewhere. */
const forHelp: Console.Console = Object.assign(Object.create(console), {
  log: forgiving(console.log),
  error: forgiving(console.error),
});
/** All else that is printed, by whomever, goes through here: a text may come from a file. */
const printing = (print: Print): Print => (...words) =>
  print(...words.map((word) => typeof word === "string" ? terminalText(word) : word));
console.log = printing(forHelp.log);
console.error = printing(forHelp.error);

const program = expectNoneEmpty(Deno.args).pipe(
  Effect.andThen(Command.run(slotcon, { version: project.version })),
  Effect.tapCause((cause) => {
    const words = explain(cause);
    if (words === null) return Effect.void;
    const who = ownRank === null || words.startsWith("Rank") ? "" : `rank ${ownRank}: `;
    return Console.error(`slotcon: ${who}${words}`);
  }),
  Effect.ensuring(
    Effect.suspend(() =>
      lost === null ? Effect.void : Console.error(`slotcon: Cannot write all of the output: ${lost}`)
    ),
  ),
  Effect.ensuring(Effect.sync(() => voice.doing(""))), // or its thread would keep the process
  Effect.provide(Layer.mergeAll(
    NodeServices.layer,
    layerTuned,
    CliOutput.layerPresenter(presenter),
    CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] }),
  )),
);

// SIGINT and SIGTERM interrupt the program, which then cleans up: a run saves a checkpoint. SIGUSR2 does the same, since
// mpirun forwards that one to its ranks; at the others it kills them.
Deno.addSignalListener("SIGUSR2", () => process.emit("SIGINT"));
// So does SIGHUP, when the terminal is closed, unless nohup has made this process ignore it.
if (Deno.env.get("SLOTCON_NOHUP") === undefined) {
  Deno.addSignalListener("SIGHUP", () => process.emit("SIGINT"));
}
let terminated = false;
Deno.addSignalListener("SIGTERM", () => terminated = true);
NodeRuntime.runMain(program, {
  disableErrorReporting: true,
  teardown: (exit, onExit) =>
    Runtime.defaultTeardown(
      exit,
      (code) => onExit(code === 130 && terminated ? 143 : code === 0 && lost !== null ? 1 : code),
    ),
});
