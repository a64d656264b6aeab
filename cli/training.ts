/** What commands that train have in common: flags that every run has, and the way from options to a run. */
import { Console, Effect, References } from "effect";
import { Flag } from "effect/cli";
import type { Gpu } from "../ops/runtime/gpu.ts";
import { rankGpu } from "../pipeline/ranks/device.ts";
import { ranks } from "../pipeline/ranks/mpi.ts";
import type { RunConfig } from "../pipeline/run/options.ts";
import { preparing, Progress } from "../pipeline/run/progress.ts";
import { ownRank, startRanks, startsRanks } from "./launch/start_ranks.ts";
import { rankReport } from "./terminal/terminal_progress.ts";
import { serveInWorker } from "./watch/serve_in_worker.ts";

export const trainingFlags = {
  printConfig: Flag.Boolean("print-config").pipe(
    Flag.withDescription("print the configuration that would be used, as JSON, and stop"),
    Flag.withDefault(false),
  ),
  verbose: Flag.Boolean("verbose").pipe(
    Flag.withDescription(
      "say which kernel each kind of work gets on this adapter (plan.json has it in any case)",
    ),
    Flag.withDefault(false),
  ),
  watched: Flag.Boolean("watch").pipe(
    Flag.withDescription("show the run on a web page for this machine, as slotcon watch does"),
    Flag.withDefault(false),
  ),
};

/** A run as a command starts it: reads its data, then trains. */
export interface TrainingCommand<Data, E, E2> {
  /** What is read, in words: "Reading the list of pictures in data". */
  readonly reading: string;
  readonly read: Effect.Effect<Data, E>;
  readonly train: (data: Data) => Effect.Effect<number, E2, Gpu>;
}

/** Trains with a configuration, or prints it, or starts the ranks that train. */
export const startTraining = Effect.fnUntraced(function* <Data, E, E2>(
  config: RunConfig,
  { printConfig, verbose, watched }: {
    readonly printConfig: boolean;
    readonly verbose: boolean;
    readonly watched: boolean;
  },
  { reading, read, train }: TrainingCommand<Data, E, E2>,
) {
  if (printConfig) return yield* Console.log(JSON.stringify(config, null, 2));
  if (yield* startsRanks(config)) return yield* startRanks(config.ranks);
  const run = Effect.gen(function* () {
    yield* preparing(reading);
    const data = yield* read;
    if (watched && (ownRank ?? 0) === 0) {
      yield* Console.log(`Watch the run on ${yield* serveInWorker(config.outputDir)}`);
    }
    yield* preparing("Opening the GPU");
    yield* Effect.provide(train(data), rankGpu(config));
  });
  // Ranks are joined before anything can fail: a rank that fails afterwards ends the others, too.
  yield* toldIfNotBegun(run).pipe(
    Effect.provide(rankReport(ownRank)),
    Effect.provide(ranks(config)),
    Effect.provideService(References.MinimumLogLevel, verbose ? "Debug" : "Info"),
  );
});

/** Says of a run that is stopped before its first step that nothing is lost. */
const toldIfNotBegun = Effect.fnUntraced(function* <A, E, R>(run: Effect.Effect<A, E, R>) {
  const progress = yield* Progress;
  let begun = false;
  const begin: typeof progress.begin = (plan) => {
    begun = true;
    return progress.begin(plan);
  };
  return yield* run.pipe(
    Effect.provideService(Progress, { ...progress, begin }),
    Effect.onInterrupt(() =>
      begun ? Effect.void : Effect.logInfo("Stopped before the first step: there is nothing to save")
    ),
  );
});
