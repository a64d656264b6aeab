/**
 * Replays recorded training steps and compares all recorded tensors: losses, intermediate tensors, gradients, and the
 * state after the step. A recording of several ranks is replayed by as many processes, or by one process with the
 * statistics and keys of all ranks' images.
 *
 * Each step runs twice: once with all tensors as outputs, and once as pretraining compiles it, so that the compared
 * losses and state come from the fused kernels of pretraining.
 */
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import { argmaxUsed } from "../../ops/argmax_counts.ts";
import { gradients } from "../../ops/autodiff.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { type Shape, ShapeError, sizeOf } from "../../ops/graph/shape.ts";
import { input, reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { Collective, type CollectiveError } from "../../ops/runtime/collective.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import { transpose } from "../../ops/slice.ts";
import { learningRate, planSchedule, teacherCounter, teacherMomentum } from "../optim/schedule.ts";
import { rateInputs, type Side, slotConStep, type Step } from "../pretrain/step.ts";
import { acrossRanks, singleProcess, type Sync } from "../ranks/sync.ts";
import { download, upload } from "../run/state.ts";
import {
  checkpointShapes,
  fileTensor,
  type StateTensor,
  type StateValues,
  toFile,
} from "../run/state_layout.ts";
import {
  readStepRecording,
  recordedOptions,
  type StepRecording,
  type StepRecordingConfig,
} from "./read_step_recording.ts";
import type { Verification } from "./report.ts";
import { type ComparedInStep, compareStepTensor, summariseSteps } from "./step_errors.ts";
import { comparedByAll, notComputed } from "./tensor_errors.ts";

/** The terms of the loss, unweighted; 12 compares the student's first view with the teacher's second. */
const TERMS = ["group12", "group21", "contrast12", "contrast21"] as const;

/** A later step at which to begin, and the state before it, as a checkpoint has it. */
export interface Midway {
  /** The first step to replay. */
  readonly step: number;
  /** The state before it. */
  readonly values: StateValues;
}

/**
 * Replays a recording of steps, from its beginning or from a later step on. Outputs have the recording's own names,
 * and such names for steps of which it does not have them. Fails with a `FormatError` that names `name` where `file`
 * is no recording of steps, lacks tensors that the steps start from, or has tensors of other shapes than its
 * configuration says.
 */
export const verifyStep: (
  file: TensorFile,
  name: string,
  midway?: Midway,
) => Effect.Effect<
  Verification,
  FormatError | GpuError | PlanError | CollectiveError,
  Gpu
> = Effect.fn("verifyStep")(
  function* (file, name, midway) {
    const recording = yield* readStepRecording(file, name);
    const { config } = recording;
    const { batch } = config;
    const part = yield* ownPart(config, name);
    const N = part.ranks.length * batch; // images a step

    const step = yield* recordedStep(config, part, name);
    const initial = midway?.values ?? (yield* initialState(recording, step));
    const batches = new Map<number, Effect.Success<ReturnType<typeof readBatch>>>();
    for (let s = midway?.step ?? 0; s < config.steps; s++) {
      batches.set(s, yield* readBatch(recording, part, s));
    }

    const state = yield* upload(step.state, initial);
    const label = `the recorded step of ${name}`;
    const parts = recordedTensors(step);
    const slopes = Object.fromEntries(step.gradients);
    const inspection = yield* compile(
      {
        label,
        outputs: { ...parts, ...prefixed("each/", step.contributions), ...prefixed("grad/", slopes) },
      },
      state,
    );
    const training = yield* compile({ label, updates: step.state.updates, outputs: step.metrics }, state);

    const outputs = new Map<string, FileTensor>();
    const compared: ComparedInStep[] = [];
    const isBefore = (tensor: string) => Number(tensor.match(/^step(\d+)/)?.[1]) < (midway?.step ?? 0);
    const isOthers = (tensor: string) =>
      part.ranks.every((rank) => !tensor.includes(`/rank${rank}/`)) && tensor.includes("/rank");
    const expected = new Set(recording.expected.filter((tensor) => !isBefore(tensor) && !isOthers(tensor)));
    const compare = Effect.fnUntraced(function* (tensor: string, shape: Shape, data: Float32Array) {
      outputs.set(tensor, recordedTensor(tensor, shape, data));
      if (!expected.delete(tensor)) return;
      const want = yield* recording.values(tensor, shape);
      const start = initial.get(tensor.replace(/^step\d+\/expect\/after\//, ""))?.data ?? null;
      compared.push(compareStepTensor(tensor, data, want, start));
    });

    for (const [s, values] of batches) {
      const inspected = yield* yield* inspection.run(values);
      const trained = yield* yield* training.run(values);

      for (const term of ["loss", ...TERMS]) yield* compare(`step${s}/expect/${term}`, [], trained[term]);
      for (const [place, rank] of part.ranks.entries()) {
        const expect = `step${s}/rank${rank}/expect/`;
        for (const [term, value] of Object.entries(ownLosses(inspected, place, part.ranks.length, config))) {
          yield* compare(expect + term, [], Float32Array.of(value));
        }
        for (const [what, { shape: [, ...rest] }] of Object.entries(parts)) {
          // A process derives the sum of all ranks' losses; recorded is the derivative of their mean.
          const share = what.startsWith("grad_") ? part.sync.world : 1;
          for (const view of [0, 1]) {
            const begin = (view * N + place * batch) * sizeOf(rest);
            const data = inspected[what].subarray(begin, begin + batch * sizeOf(rest)).map((value) =>
              value / share
            );
            yield* compare(`${expect}${what}${view + 1}`, [batch, ...rest], data);
          }
        }
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
    return { rows: summariseSteps(yield* comparedByAll(compared)), outputs };
  },
  Effect.scoped,
);

/** The recorded ranks that this process replays. */
interface Part {
  readonly ranks: readonly number[];
  readonly sync: Sync;
}

/** One rank for each process, or all ranks for a single one. */
const ownPart = Effect.fnUntraced(function* (
  { world }: StepRecordingConfig,
  file: string,
): Effect.fn.Return<Part, FormatError> {
  const { rank, world: processes } = yield* Collective;
  if (processes === 1) {
    return { ranks: Array.from({ length: world }, (_, rank) => rank), sync: singleProcess };
  }
  if (processes === world) return { ranks: [rank], sync: acrossRanks(rank, world) };
  const reason =
    `it is of ${world} ranks, which ${processes} processes cannot replay: start ${world} of them, or one`;
  return yield* new FormatError({ subject: file, reason });
});

/** The graph of a recorded step. Its inputs are the recorded views, rank by rank. */
const recordedStep = (
  config: StepRecordingConfig,
  part: Part,
  file: string,
): Effect.Effect<Step, FormatError> =>
  Effect.try({
    try: () => {
      const views = 2 * part.ranks.length * config.batch;
      const crops = input("crops", [views, 3, config.image_size, config.image_size]);
      return slotConStep(
        {
          images: transpose(crops, [0, 2, 3, 1]),
          coords: input("coords", [views, 4]),
          flips: input("flips", [views]),
        },
        rateInputs(),
        { ...recordedOptions(config), blocks: part.ranks.length, sync: part.sync },
      );
    },
    catch: (error) => {
      if (!(error instanceof ShapeError)) throw error;
      return new FormatError({ subject: file, reason: `its config makes no network: ${error.message}` });
    },
  });

/** Whether a tensor of the state is recorded: the optimiser's buffers are not, and start at zero. */
const isRecorded = (name: string) => !name.startsWith("optimizer.");

const initialState = Effect.fnUntraced(function* (recording: StepRecording, step: Step) {
  const initial = new Map<string, StateTensor>();
  for (const [name, shape] of checkpointShapes(step.state)) {
    const data = isRecorded(name)
      ? yield* recording.values(`init/${name}`, shape)
      : new Float32Array(sizeOf(shape));
    initial.set(name, { shape, data });
  }
  return initial;
});

/** All inputs of step `s`: the first views of the ranks before their second ones, and the rates. */
const readBatch = Effect.fnUntraced(
  function* ({ config, values }: StepRecording, { ranks }: Part, s: number) {
    const { world, batch, image_size: S } = config;
    const ofAllRanks = Effect.fnUntraced(function* (what: string, shape: Shape) {
      const pieces: Float32Array[] = [];
      for (const view of [0, 1]) {
        for (const rank of ranks) {
          pieces.push(yield* values(`step${s}/rank${rank}/${what}${view}`, [batch, ...shape]));
        }
      }
      return joined(pieces);
    });

    const options = {
      epochs: config.epochs,
      warmupEpoch: config.warmup_epoch,
      warmupMultiplier: config.warmup_multiplier,
      baseLr: config.base_lr,
      batchSize: world * batch,
      world,
      instances: config.num_instances,
      teacherMomentum: config.teacher_momentum,
    };
    const schedule = planSchedule(options);
    const epochsBefore = config.start_epoch - 1;
    const rate = learningRate(epochsBefore * schedule.stepsPerEpoch + s, schedule);
    const momentum = teacherMomentum(teacherCounter(options, epochsBefore) + s, schedule);
    return {
      crops: yield* ofAllRanks("crops", [3, S, S]),
      coords: yield* ofAllRanks("coords", [4]),
      flips: yield* ofAllRanks("flags", []),
      learningRate: Float32Array.of(rate),
      teacherMomentum: Float32Array.of(momentum),
    };
  },
);

const joined = (pieces: readonly Float32Array[]): Float32Array => {
  const all = new Float32Array(pieces.reduce((total, piece) => total + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
};

/**
 * The tensors that are recorded for every image and view, in the recording's layouts, [views, C, h, w] or [views, K,
 * ...], by the recording's names without the number of the view.
 */
const recordedTensors = ({ loss, student, teacher }: Step): Record<string, Tensor> => {
  const parts = (side: Side) => ({
    backbone: side.features,
    projected: side.projections,
    score: side.scores,
    slots: side.slots,
    aligned: side.aligned,
  });
  const found: Record<string, Tensor> = {};
  const add = (name: string, x: Tensor) =>
    found[name] = x.shape.length === 4 ? transpose(x, [0, 3, 1, 2]) : x;
  for (const [name, side] of [["q", student], ["k", teacher]] as const) {
    for (const [part, x] of Object.entries(parts(side))) add(`${part}_${name}`, x);
    const [views, h, w, K] = side.scores.shape;
    add(`active_${name}`, argmaxUsed(reshape(side.scores, [views, h * w, K])));
  }
  const own = Object.entries(parts(student));
  gradients(loss, own.map(([, x]) => x)).forEach((slope, i) => add(`grad_${own[i][0]}_q`, slope));
  return found;
};

const prefixed = (prefix: string, tensors: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(tensors).map(([name, x]) => [prefix + name, x]));

/** The loss of one rank and its terms, from the contributions of each image and each query of `ranks` ranks. */
const ownLosses = (
  values: Readonly<Record<string, Float32Array>>,
  rank: number,
  ranks: number,
  { batch, num_prototypes, group_loss_weight: weight }: StepRecordingConfig,
): Record<"loss" | typeof TERMS[number], number> => {
  const group = (pair: string) =>
    sumOf(values[`each/group${pair}`].subarray(rank * batch, (rank + 1) * batch)) / batch;
  const contrast = (pair: string) => {
    const slots = values[`each/rows${pair}`]; // image · K + prototype
    const isOwn = (_: number, i: number) => Math.floor(slots[i] / (batch * num_prototypes)) === rank;
    return ranks * sumOf(values[`each/contrast${pair}`].filter(isOwn));
  };
  const [group12, group21] = ["12", "21"].map(group);
  const [contrast12, contrast21] = ["12", "21"].map(contrast);
  const loss = weight * (group12 + group21) + (1 - weight) * (contrast12 + contrast21);
  return { loss, group12, group21, contrast12, contrast21 };
};

const sumOf = (values: Float32Array): number => values.reduce((total, value) => total + value, 0);

/** Computed values as recordings store them: like checkpoints, but active slots are bytes. */
const recordedTensor = (name: string, shape: Shape, data: Float32Array): FileTensor =>
  /\/active_..$/.test(name)
    ? { dtype: "U8", shape, data: Uint8Array.from(data) }
    : fileTensor(name, { shape, data });
