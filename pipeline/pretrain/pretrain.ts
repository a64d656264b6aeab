/** Pretraining: the whole dataflow, from a list of images to checkpoints. The loop itself is run/train.ts. */
import { Effect } from "effect";
import type { FormatError } from "../../data/files/format_error.ts";
import { Collective } from "../../ops/runtime/collective.ts";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { learningRate, planSchedule, teacherMomentum } from "../optim/schedule.ts";
import { acrossRanks } from "../ranks/sync.ts";
import type { TooManyBadImagesError } from "../run/bad_images.ts";
import { compileStep } from "../run/compile_step.ts";
import { exported } from "../run/otlp.ts";
import { preparing } from "../run/progress.ts";
import { broadcastStart } from "../run/replicas.ts";
import { lockOf } from "../run/run_folder.ts";
import { expectSameRun, sharedOptions } from "../run/same_run.ts";
import { upload } from "../run/state.ts";
import { rankBatchSize, train, type TrainError, type UnevenBatchError } from "../run/train.ts";
import type { WorkerError } from "../run/worker.ts";
import { type Config, PRETRAIN_OPTIONS } from "./config.ts";
import { type Batch, batches, BatchTooLargeError } from "./decode.ts";
import { startingPoint } from "./resume.ts";
import { slotPictureBytes, slotPictures } from "./slot_pictures.ts";
import { type StepBuilder, stepGraph } from "./step_graph.ts";
import { PRETRAIN, recordedConfig } from "./task.ts";

/** How pretraining can fail. */
export type PretrainError =
  | TrainError
  | BatchTooLargeError
  | UnevenBatchError
  | TooManyBadImagesError
  | FormatError
  | WorkerError;

/**
 * Pretrains on `images` (paths) with the options of `config`, into its output folder. Goes on from a checkpoint where
 * the configuration asks for it. Interrupted, it finishes the step and saves a checkpoint before it stops. `build`
 * makes the graph of a step, SlotCon's unless given. Returns how many steps are done.
 *
 * Of several ranks (ops/runtime/collective.ts) each works on its share of every batch; rank 0 reads and writes
 * checkpoints and the run's folder.
 */
export const pretrain: (
  config: Config,
  images: readonly string[],
  build?: StepBuilder,
) => Effect.Effect<number, PretrainError, Gpu> = Effect.fnUntraced(function* (config, images, build) {
  const { traits } = yield* Gpu;
  const { rank, world } = yield* Collective;
  const instances = images.length;
  const options = sharedOptions(PRETRAIN_OPTIONS, config);
  yield* expectSameRun({ options, images, dataDir: config.dataDir });
  const schedule = planSchedule({ ...config, world: 1, instances });
  if (schedule.stepsPerEpoch === 0) {
    return yield* new BatchTooLargeError({ batchSize: config.batchSize, images: instances });
  }
  const own = { ...config, batchSize: yield* rankBatchSize(config.batchSize, world) };
  const lock = rank === 0 ? yield* lockOf(config.outputDir) : undefined;

  yield* preparing("Reading the weights that the run begins with");
  const { packing, state, graph } = stepGraph(own, traits, build, acrossRanks(rank, world));
  const start = yield* broadcastStart(
    startingPoint({ config, state, schedule, instances }),
    state,
    config.seed,
  );
  const buffers = yield* upload(state, start.values);
  const memoryTaken = config.memoryLimit === null ? 0 : slotPictureBytes(own, traits);
  const program = yield* compileStep({ ...graph, memoryTaken }, buffers);
  const lastStep = Math.min(schedule.totalSteps, config.steps ?? Infinity);
  const recorded = recordedConfig(config, state);
  const slotMaps = rank === 0 ? yield* slotPictures(own, images, { state, buffers, lastStep }) : null;

  return yield* train({
    task: PRETRAIN,
    config: recorded,
    images: instances,
    start,
    lock,
    stepsPerEpoch: schedule.stepsPerEpoch,
    lastStep,
    state,
    buffers,
    program,
    memoryBesides: { slot_maps: slotMaps?.deviceBytes ?? 0 },
    batches: batches(
      images,
      { ...config, pixelCapacity: packing.capacity, maxTaps: packing.maxTaps, rank, world },
      start.step,
    ),
    step: ({ step, pixels, views, coords, flips }: Batch) => {
      const lr = learningRate(step, schedule);
      const momentum = teacherMomentum(step + start.teacherStepOffset, schedule);
      const rates = { learningRate: Float32Array.of(lr), teacherMomentum: Float32Array.of(momentum) };
      return Effect.succeed({
        program,
        uploads: { pixels, views, coords, flips, ...rates },
        reported: { lr, teacher_momentum: momentum },
      });
    },
    remedy: "lower --base-lr or raise --warmup-epoch",
    meta: (done) => ({
      step: done,
      teacherCounter: done + start.teacherStepOffset,
      instances,
      config: recorded,
    }),
    observer: slotMaps,
  });
}, (run, config) => exported(run, PRETRAIN.name, config));
