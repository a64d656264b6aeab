/**
 * Fine-tuning on semantic segmentation: the whole dataflow, from a labelled data set to checkpoints. The loop itself is
 * run/train.ts.
 */
import { Effect } from "effect";
import type { FormatError } from "../../../data/files/format_error.ts";
import type { SegmentationSet } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { Collective } from "../../../ops/runtime/collective.ts";
import type { Gpu } from "../../../ops/runtime/gpu.ts";
import { policyRate, type RatePolicy } from "../../optim/rate_policy.ts";
import { acrossRanks } from "../../ranks/sync.ts";
import type { TooManyBadImagesError } from "../../run/bad_images.ts";
import { stepsPerEpoch } from "../../run/batches.ts";
import { compileStep } from "../../run/compile_step.ts";
import { ConfigError, sharesIn } from "../../run/options.ts";
import { exported } from "../../run/otlp.ts";
import { preparing } from "../../run/progress.ts";
import { broadcastStart } from "../../run/replicas.ts";
import { lockOf } from "../../run/run_folder.ts";
import { expectSameRun, sharedOptions } from "../../run/same_run.ts";
import { upload } from "../../run/state.ts";
import { rankBatchSize, train, type TrainError, type UnevenBatchError } from "../../run/train.ts";
import type { WorkerError } from "../../run/worker.ts";
import { type Batch, batches } from "./batches.ts";
import { SEGMENTATION_OPTIONS, type SegmentationConfig } from "./config.ts";
import { segmentationStart } from "./resume.ts";
import { segmentationStep } from "./step.ts";
import { type SegmentationStepBuilder, segmentationStepGraph } from "./step_graph.ts";
import { SEGMENTATION } from "./task.ts";
import { segmentationValidation } from "./validation.ts";

/** How fine-tuning can fail. */
export type SegmentationError =
  | TrainError
  | UnevenBatchError
  | TooManyBadImagesError
  | FormatError
  | ConfigError
  | WorkerError;

/** The images that a segmentor is trained on, and those that it is scored on. */
export interface SegmentationData {
  /** To train on. */
  readonly train: SegmentationSet;
  /** To score now and then; null where nothing is scored. */
  readonly val: SegmentationSet | null;
}

/**
 * Fine-tunes a segmentor with the options of `config`, into its output folder. Goes on from a checkpoint where the
 * configuration asks for it. Interrupted, it finishes the step and saves a checkpoint before it stops. `build` makes the
 * graph of a step, that of the published recipes unless given. Returns how many steps are done.
 *
 * Of several ranks (ops/runtime/collective.ts) each works on its share of every batch, and of the validation images.
 */
export const transferSegmentation: (
  config: SegmentationConfig,
  data: SegmentationData,
  build?: SegmentationStepBuilder,
) => Effect.Effect<number, SegmentationError, Gpu> = Effect.fnUntraced(
  function* (config, { train: { samples, classes, warnings }, val }, build = segmentationStep) {
    const { rank, world } = yield* Collective;
    if (config.classes !== null && config.classes !== classes.length) {
      const reason = `${config.classes} classes are expected, "${config.dataDir}" has ${classes.length}`;
      return yield* new ConfigError({ subject: "--classes", reason });
    }
    const instances = samples.length;
    yield* expectSameRun({
      options: {
        ...sharedOptions(SEGMENTATION_OPTIONS, config),
        classes: classes.map(({ name }) => name).join(),
      },
      images: [...samples, ...val?.samples ?? []].map(({ image }) => image),
      dataDir: config.dataDir,
    });
    const share = { ...config, batchSize: yield* rankBatchSize(config.batchSize, world) };
    const lock = rank === 0 ? yield* lockOf(config.outputDir) : undefined;

    yield* preparing("Reading the weights that the run begins with");
    const { state, graph } = segmentationStepGraph(share, classes.length, build, acrossRanks(rank, world));
    const start = yield* broadcastStart(
      segmentationStart({ config, state, instances, classes }),
      state,
      config.seed,
    );
    const buffers = yield* upload(state, start.values);
    const program = yield* compileStep(graph, buffers);
    const lastStep = Math.min(config.iterations, config.steps ?? Infinity);
    const validation = val === null
      ? undefined
      : yield* segmentationValidation(config, val, { buffers, firstStep: start.step, lastStep });
    const policy = ratePolicy(config);

    return yield* train({
      task: SEGMENTATION,
      config,
      images: instances,
      start: { ...start, notes: [...start.notes, ...warnings, ...val?.warnings ?? []] },
      lock,
      stepsPerEpoch: stepsPerEpoch(instances, config.batchSize),
      lastStep,
      state,
      buffers,
      program,
      memoryBesides: {},
      batches: batches(samples, { ...config, rank, world }, start.step),
      step: ({ step, pixels, sizes, keptHead, keptAuxiliary }: Batch) => {
        const lr = policyRate(step, policy);
        const kept = { ...keptHead && { keptHead }, ...keptAuxiliary && { keptAuxiliary } };
        return Effect.succeed({
          program,
          uploads: { pixels, sizes, ...kept, learningRate: Float32Array.of(lr) },
          reported: { lr },
        });
      },
      remedy: "lower --base-lr",
      meta: (step, miou) => ({ step, instances, classes, miou, config }),
      validation,
      observer: null,
    });
  },
  Effect.scoped,
  (run, config) => exported(run, SEGMENTATION.name, config),
);

/** The learning rates of a run. */
export const ratePolicy = (config: SegmentationConfig): RatePolicy => {
  const { schedule, baseLr, iterations, milestones, lrDecay, minLr, power } = config;
  return schedule === "poly" ? { schedule, baseLr, minLr, power, iterations } : {
    schedule,
    baseLr,
    milestones: sharesIn(milestones).map((share) => Math.round(share * iterations)),
    decay: lrDecay,
  };
};
