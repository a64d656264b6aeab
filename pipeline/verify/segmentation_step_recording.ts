/**
 * Replays recorded training steps of segmentors and compares all recorded tensors: losses, accuracies, maps, gradients,
 * and the state after the step. Several processes share the recorded batch, each with as many of its images.
 *
 * Each step runs twice: once with all tensors as outputs, and once as a run compiles it, so that the compared losses and
 * state come from the fused kernels of training.
 */
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import { gradients } from "../../ops/autodiff.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { type Shape, ShapeError, sizeOf } from "../../ops/graph/shape.ts";
import { input, type Tensor } from "../../ops/graph/tensor.ts";
import { resizeBilinear } from "../../ops/resize_bilinear.ts";
import { Collective, type CollectiveError } from "../../ops/runtime/collective.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import { slice, transpose } from "../../ops/slice.ts";
import { policyRate } from "../optim/rate_policy.ts";
import { acrossRanks } from "../ranks/sync.ts";
import { download, upload } from "../run/state.ts";
import { checkpointShapes, fileTensor, type StateTensor, toFile } from "../run/state_layout.ts";
import type { SegmentorOptions } from "../transfer/segmentation/network.ts";
import { type SegmentationStep, segmentationStep } from "../transfer/segmentation/step.ts";
import {
  readStepConfig,
  recordedPolicy,
  recordedSegmentor,
  type SegmentationStepConfig,
} from "./read_segmentation_recording.ts";
import { recordedValues, type Values } from "./recorded_values.ts";
import type { Verification } from "./report.ts";
import {
  absolute,
  type Compared,
  comparedByAll,
  compareTensor,
  equal,
  never,
  NOT_COMPUTED,
  notComputed,
  ofChange,
  relative,
  summarise,
  type Tolerances,
} from "./tensor_errors.ts";

// As the recordings' description has them: ten times the rounding of float32 and more.
const TOLERANCES = {
  "learning rates": relative(1e-12),
  "losses": relative(5e-5),
  "accuracies in per cent": absolute(0.1),
  "maps": relative(1e-3),
  "gradients of maps": relative(1e-3),
  "gradients of parameters": relative(3e-3),
  "parameters after the step": ofChange(2e-3, 5e-7),
  "running statistics after the step": ofChange(1e-3, 5e-7),
  "counters of batches": equal,
  [NOT_COMPUTED]: never,
} satisfies Tolerances<string>;
type Group = Exclude<keyof typeof TOLERANCES, typeof NOT_COMPUTED>;

const groupOf = (name: string): Group => {
  if (name.endsWith("num_batches_tracked")) return "counters of batches";
  if (name.includes("/grad/")) return "gradients of parameters";
  if (name.includes("/after/")) {
    return /running_(mean|var)$/.test(name)
      ? "running statistics after the step"
      : "parameters after the step";
  }
  const what = name.slice(name.lastIndexOf("/") + 1);
  if (what === "lr") return "learning rates";
  if (/^loss(_|$)/.test(what)) return "losses";
  if (what.startsWith("acc_")) return "accuracies in per cent";
  return what.startsWith("grad_") ? "gradients of maps" : "maps";
};

/**
 * Replays a recording of steps. Outputs have the recording's own names; of maps they have the images of this process.
 * Fails with a `FormatError` that names `name` where `file` is no such recording, lacks tensors that the steps start from,
 * or has tensors of other shapes than its configuration says.
 */
export const verifySegmentationStep: (
  file: TensorFile,
  name: string,
) => Effect.Effect<
  Verification,
  FormatError | GpuError | PlanError | CollectiveError,
  Gpu
> = Effect.fn("verifySegmentationStep")(
  function* (file, name) {
    const { config, steps } = yield* readStepConfig(file.metadata, name);
    const options = yield* recordedSegmentor(config, config.aux_weight, name);
    const values = recordedValues(file, name);
    const part = yield* ownPart(config, name);
    const { step, maps } = yield* recordedStep(config, options, part, name);

    const initial = new Map<string, StateTensor>();
    for (const [tensor, shape] of checkpointShapes(step.state)) {
      const data = isRecorded(tensor)
        ? yield* values(`init/${tensor}`, shape)
        : new Float32Array(sizeOf(shape));
      initial.set(tensor, { shape, data });
    }
    const state = yield* upload(step.state, initial);
    const label = `the recorded step of ${name}`;
    const slopes = Object.fromEntries([...step.gradients].map(([name, x]) => [`grad/${name}`, x]));
    const inspection = yield* compile({ label, outputs: { ...maps, ...slopes } }, state);
    const training = yield* compile({ label, updates: step.state.updates, outputs: step.metrics }, state);

    const outputs = new Map<string, FileTensor>();
    const compared: Compared<Group>[] = [];
    const expected = new Set([...file.tensors.keys()].filter((tensor) => tensor.includes("/expect/")));
    const compareWith = (tensor: string, got: Float32Array, want: ArrayLike<number>) => {
      const group = groupOf(tensor);
      const start = initial.get(tensor.replace(/^step\d+\/expect\/after\//, ""))?.data ?? null;
      compared.push(compareTensor({ group, name: tensor, tolerance: TOLERANCES[group] }, got, want, start));
    };
    const compare = Effect.fnUntraced(function* (tensor: string, shape: Shape, data: Float32Array) {
      outputs.set(tensor, fileTensor(tensor, { shape, data }));
      if (expected.delete(tensor)) compareWith(tensor, data, yield* values(tensor, shape));
    });
    /** Compares maps of this process's images with those of the whole recorded batch. */
    const compareImages = Effect.fnUntraced(function* (tensor: string, shape: Shape, data: Float32Array) {
      outputs.set(tensor, fileTensor(tensor, { shape, data }));
      if (!expected.delete(tensor)) return;
      const all = yield* values(tensor, [config.batch, ...shape.slice(1)]);
      compareWith(
        tensor,
        data,
        all.subarray(part.first * data.length / part.images).subarray(0, data.length),
      );
    });

    for (const [s, { iteration, lr }] of steps.entries()) {
      const rate = policyRate(iteration, recordedPolicy(config));
      const [got, want] = [rate, lr].map((value) => [value]);
      compared.push(
        compareTensor(
          { group: "learning rates", name: `step${s}/lr`, tolerance: TOLERANCES["learning rates"] },
          got,
          want,
        ),
      );
      const batch = { ...yield* readBatch(values, config, part, s), rate: Float32Array.of(rate) };
      const inspected = yield* yield* inspection.run(batch);
      const trained = yield* yield* training.run(batch);

      for (const [metric, value] of Object.entries(trained)) {
        if (/^(loss|acc)/.test(metric)) yield* compare(`step${s}/expect/${metric}`, [], value);
      }
      for (const [map, { shape }] of Object.entries(maps)) {
        const tensor = `step${s}/expect/${map}`;
        if (map === UPSAMPLED) {
          if (part.first === 0) yield* compare(tensor, shape.slice(1), inspected[map]);
          else expected.delete(tensor);
          continue;
        }
        // A process derives the sum of all ranks' losses; recorded is the derivative of their mean.
        const share = map.startsWith("grad_") ? part.sync.world : 1;
        yield* compareImages(tensor, shape, inspected[map].map((value) => value / share));
      }
      for (const parameter of step.gradients.keys()) {
        const declared = step.state.declared.get(parameter)!;
        for (const [tensor, { shape, data }] of toFile(declared, inspected[`grad/${parameter}`])) {
          yield* compare(`step${s}/expect/grad/${tensor}`, shape, data);
        }
      }
      for (const [tensor, { shape, data }] of yield* download(step.state, state)) {
        if (isRecorded(tensor)) yield* compare(`step${s}/expect/after/${tensor}`, shape, data);
      }
    }
    for (const tensor of expected) compared.push(notComputed(tensor));
    return { rows: summarise<Group>(TOLERANCES, yield* comparedByAll(compared)), outputs };
  },
  Effect.scoped,
);

/** The images of the recorded batch that this process replays. */
interface Part {
  readonly first: number;
  readonly images: number;
  readonly sync: ReturnType<typeof acrossRanks>;
}

const ownPart = Effect.fnUntraced(function* (
  { batch }: SegmentationStepConfig,
  file: string,
): Effect.fn.Return<Part, FormatError> {
  const { rank, world } = yield* Collective;
  const images = batch / world;
  if (Number.isInteger(images)) return { first: rank * images, images, sync: acrossRanks(rank, world) };
  const reason =
    `it has a batch of ${batch}, which ${world} processes cannot share: start as many as divide it`;
  return yield* new FormatError({ subject: file, reason });
});

/** Whether a tensor of the state is recorded: the optimiser's buffers are not, and start at zero. */
const isRecorded = (name: string) => !name.startsWith("optimizer.");

/** The logits of the first image, enlarged to its labels. */
const UPSAMPLED = "head_upsampled";

interface Replay {
  readonly step: SegmentationStep;
  /** The recorded maps, [images, C, h, w], by their names in the recording. */
  readonly maps: Readonly<Record<string, Tensor>>;
}

/** The graph of a recorded step. Its inputs are those of `readBatch` and the rate. */
const recordedStep = (
  config: SegmentationStepConfig,
  options: SegmentorOptions,
  { images, sync }: Part,
  file: string,
): Effect.Effect<Replay, FormatError> =>
  Effect.try({
    try: () => {
      const { crop: [height, width], align_corners: alignCorners } = config;
      const auxiliary = options.auxiliaryWeight === 0
        ? null
        : input("keptAuxiliary", [images, options.auxiliaryChannels]);
      const batch = {
        images: transpose(input("images", [images, 3, height, width]), [0, 2, 3, 1]),
        labels: input("labels", [images, height, width], "u32"),
        kept: config.dropout === 0
          ? null
          : { head: input("keptHead", [images, options.headChannels]), auxiliary },
      };
      const step = segmentationStep(batch, input("rate", []), {
        ...{ ...options, optimizer: "sgd", momentum: config.momentum, weightDecay: config.weight_decay },
        ...{ sync, alignCorners },
      });
      return { step, maps: recordedMaps(step, { height, width, alignCorners }) };
    },
    catch: (error) => {
      if (!(error instanceof ShapeError)) throw error;
      return new FormatError({ subject: file, reason: `its config makes no network: ${error.message}` });
    },
  });

const recordedMaps = (
  { loss, segmented }: SegmentationStep,
  resizing: Parameters<typeof resizeBilinear>[1],
): Replay["maps"] => {
  const { stem, stages: [stage1, stage2, stage3, stage4], head, auxiliary } = segmented;
  const heads = {
    head_convs: head.features,
    ...head.fused === null ? {} : { head_cat: head.fused },
    head_logits: head.logits,
    ...auxiliary === null ? {} : { aux_convs: auxiliary.features, aux_logits: auxiliary.logits },
  };
  const derived = { stage3, stage4, ...heads };
  const slopes = gradients(loss, Object.values(derived));
  const found = {
    ...{ stem, stage1, stage2, ...derived },
    ...Object.fromEntries(Object.keys(derived).map((name, i) => [`grad_${name}`, slopes[i]])),
    [UPSAMPLED]: resizeBilinear(slice(head.logits, 0, 0, 1), resizing),
  };
  return Object.fromEntries(Object.entries(found).map(([name, x]) => [name, transpose(x, [0, 3, 1, 2])]));
};

/** The recorded images, labels and kept channels of step `s` that are this process's. */
const readBatch = Effect.fnUntraced(
  function* (values: Values, config: SegmentationStepConfig, { first, images }: Part, s: number) {
    const { batch, crop: [height, width], dropout, ignore_index, aux_weight } = config;
    const own = Effect.fnUntraced(function* (what: string, shape: Shape) {
      const all = yield* values(`step${s}/${what}`, [batch, ...shape]);
      return all.subarray(first * sizeOf(shape), (first + images) * sizeOf(shape));
    });
    const kept = (what: string, channels: number) =>
      Effect.map(own(what, [channels]), (drawn) => drawn.map((value) => value / (1 - dropout)));
    const labels = yield* own("labels", [height, width]);
    return {
      images: yield* own("images", [3, height, width]),
      labels: Uint32Array.from(labels, (label) => label === ignore_index ? 255 : label),
      ...dropout === 0 ? {} : { keptHead: yield* kept("dropout_head", config.head) },
      ...dropout === 0 || aux_weight === 0
        ? {}
        : { keptAuxiliary: yield* kept("dropout_aux", config.aux ?? 1) },
    };
  },
);
