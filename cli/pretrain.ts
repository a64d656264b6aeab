import { Console, Effect, References } from "effect";
import { Command, Flag } from "effect/cli";
import { listImages } from "../data/datasets/image_list.ts";
import type { Config } from "../pipeline/pretrain/config.ts";
import { pretrain as run } from "../pipeline/pretrain/pretrain.ts";
import { rankGpu } from "../pipeline/ranks/device.ts";
import { preparing, Progress } from "../pipeline/run/progress.ts";
import { ranks } from "../pipeline/ranks/mpi.ts";
import { ownRank, startRanks, startsRanks } from "./launch/start_ranks.ts";
import { configFlags, configOf } from "./flags/config_flags.ts";
import { rankReport } from "./terminal/terminal_progress.ts";
import { serveInWorker } from "./watch/serve_in_worker.ts";

export const pretrain = Command.make(
  "pretrain",
  {
    ...configFlags,
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
  },
  Effect.fn(function* ({ printConfig, verbose, watched, ...flags }) {
    const config = yield* configOf(flags);
    if (printConfig) return yield* Console.log(JSON.stringify(config, null, 2));
    if (yield* startsRanks(config)) return yield* startRanks(config.ranks);
    // Ranks are joined before anything can fail: a rank that fails afterwards ends the others, too.
    yield* Effect.provide(train(config, watched), ranks(config)).pipe(
      Effect.provideService(References.MinimumLogLevel, verbose ? "Debug" : "Info"),
    );
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Pretrain an encoder on a folder of pictures. The output folder gets log.txt, metrics.jsonl, config.json and " +
      "checkpoints; Ctrl-C saves one more before it ends.",
  ),
  Command.withShortDescription("Pretrain an encoder on a folder of pictures"),
  Command.withExamples([
    {
      command: "slotcon pretrain --preset coco-800 --data-dir datasets/coco --output-dir runs/coco",
      description: "The published run on COCO",
    },
    {
      command:
        "slotcon pretrain --dataset Folder --data-dir ~/photos --arch resnet18 --batch-size 32 --epochs 50",
      description: "A small run on photographs of your own",
    },
    {
      command: "slotcon pretrain --preset coco-800 --data-dir datasets/coco --output-dir runs/coco --ranks 8",
      description: "The same on eight GPUs of this machine; mpirun and srun start it on several",
    },
    {
      command: "slotcon pretrain --config runs/coco/config.json --auto-resume",
      description: "Go on with a run that was stopped",
    },
  ]),
);

const train = Effect.fnUntraced(function* (config: Config, watched: boolean) {
  yield* preparing(() => `Reading the list of pictures in ${config.dataDir}`);
  const images = yield* listImages(config);
  if (watched && (ownRank ?? 0) === 0) {
    yield* Console.log(`Watch the run on ${yield* serveInWorker(config.outputDir)}`);
  }
  yield* preparing(() => "Opening the GPU");
  yield* Effect.provide(run(config, images), rankGpu(config));
}, (train) => Effect.provide(toldIfNotBegun(train), rankReport(ownRank)));

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
