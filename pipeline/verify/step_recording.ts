/**
 * Replays recorded training steps and compares everything that was recorded of them: losses, intermediate tensors,
 * gradients, and the state after the step. A recording of several ranks is replayed in one process, with statistics
 * and keys of the union of their pictures.
 */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/formats/format_error.ts";
import type { FileTensor, TensorFile } from "../../data/formats/safetensors.ts";
import { gradients } from "../../ops/autodiff.ts";
import { compile } from "../../ops/compile.ts";
import { input, sizeOf, type Tensor } from "../../ops/tensor.ts";
import { learningRate, planSchedule, teacherCounter, teacherMomentum } from "../optim/schedule.ts";
import { type ArchitectureName, ARCHITECTURES } from "../model/resnet.ts";
import { checkpointShapes, download, type StateTensor, toFile, upload } from "../state.ts";
import { rateInputs, type Side, slotConStep } from "../step.ts";
import type { Verification, VerifyRow } from "./report.ts";

const Config = Schema.Struct({
  arch: Schema.Literals(Object.keys(ARCHITECTURES) as ArchitectureName[]),
  width: Schema.Number,
  image_size: Schema.Number,
  batch: Schema.Number,
  world: Schema.Number,
  dim_hidden: Schema.Number,
  dim_out: Schema.Number,
  num_prototypes: Schema.Number,
  teacher_momentum: Schema.Number,
  teacher_temp: Schema.Number,
  student_temp: Schema.Number,
  center_momentum: Schema.Number,
  group_loss_weight: Schema.Number,
  optimizer: Schema.Literals(["lars", "sgd"]),
  base_lr: Schema.Number,
  weight_decay: Schema.Number,
  momentum: Schema.Number,
  warmup_epoch: Schema.Number,
  warmup_multiplier: Schema.Number,
  epochs: Schema.Number,
  start_epoch: Schema.Number,
  num_instances: Schema.Number,
  steps: Schema.Number,
});
const decodeConfig = Schema.decodeUnknownEffect(Schema.fromJsonString(Config));

/** Is this what `verifyStep` replays? */
export const isStepRecording = ({ metadata }: TensorFile): boolean =>
  metadata.format?.startsWith("slotcon-step-recording/") ?? false;

const SIDES = ["backbone", "projected", "score", "slots", "aligned"] as const;
const TERMS = ["group12", "group21", "contrast12", "contrast21"] as const;

/**
 * Replays a step recording. Outputs carry the recording's names. Fails with FormatError where the recording is not
 * one, lacks tensors, or has them in other shapes than its configuration says.
 */
export const verifyStep = Effect.fn("verifyStep")(function* (recording: TensorFile, file: string) {
  const { tensors } = recording;
  const config = yield* decodeConfig(recording.metadata.config ?? "").pipe(
    Effect.mapError(({ message }) =>
      new FormatError({ file, reason: `its config cannot be used: ${message}` })
    ),
  );
  const { world, batch } = config;
  const N = batch * world;
  const S = config.image_size;

  const views = {
    images: input("images", [2 * N, S, S, 3]),
    coords: input("coords", [2 * N, 4]),
    flips: input("flips", [2 * N]),
  };
  const step = slotConStep(views, rateInputs(), {
    arch: config.arch,
    width: config.width,
    dimHidden: config.dim_hidden,
    dimOut: config.dim_out,
    numPrototypes: config.num_prototypes,
    teacherTemp: config.teacher_temp,
    studentTemp: config.student_temp,
    centerMomentum: config.center_momentum,
    groupLossWeight: config.group_loss_weight,
    optimizer: config.optimizer,
    weightDecay: config.weight_decay,
    momentum: config.momentum,
    ranks: world,
  });

  // The initial state; what is not recorded (velocities) starts at zero.
  const initial = new Map<string, StateTensor>();
  for (const [name, shape] of checkpointShapes(step.state)) {
    const recorded = tensors.get(`init/${name}`);
    if (recorded === undefined) {
      if (!name.startsWith("optimizer.")) {
        return yield* new FormatError({ file, reason: `it lacks init/${name}` });
      }
      initial.set(name, { shape, data: new Float32Array(sizeOf(shape)) });
      continue;
    }
    if (recorded.shape.join() !== shape.join()) {
      const reason = `init/${name} must be [${shape.join(", ")}], current shape is [${
        recorded.shape.join(", ")
      }]`;
      return yield* new FormatError({ file, reason });
    }
    initial.set(name, { shape, data: Float32Array.from(recorded.data as ArrayLike<number>, Number) });
  }
  const state = yield* upload(step.state, initial);

  // Intermediate tensors of the student, in the order of SIDES, with their gradients.
  const parts = (side: Side) => [side.features, side.projections, side.scores, side.slots, side.aligned];
  const outputs: Record<string, Tensor> = { ...step.metrics };
  const slopes = gradients(step.loss, parts(step.student));
  SIDES.forEach((part, i) => {
    outputs[`${part}_q`] = parts(step.student)[i];
    outputs[`${part}_k`] = parts(step.teacher)[i];
    outputs[`grad_${part}_q`] = slopes[i];
  });
  for (const [name, gradient] of step.gradients) outputs[`grad/${name}`] = gradient;
  for (const [name, x] of Object.entries(step.contributions)) outputs[`each/${name}`] = x;
  const program = yield* compile({
    label: `the recorded step of ${file}`,
    updates: step.state.updates,
    outputs,
  }, state);

  const scheduleOptions = {
    epochs: config.epochs,
    warmupEpoch: config.warmup_epoch,
    warmupMultiplier: config.warmup_multiplier,
    baseLr: config.base_lr,
    batchSize: N,
    world,
    instances: config.num_instances,
    teacherMomentum: config.teacher_momentum,
  };
  const schedule = planSchedule(scheduleOptions);
  const firstStep = (config.start_epoch - 1) * schedule.stepsPerEpoch;
  const firstK = teacherCounter(scheduleOptions, config.start_epoch - 1);

  const rows = new Rows();
  const computed = new Map<string, FileTensor>();
  const compare = (name: string, shape: readonly number[], data: ArrayLike<number>) => {
    const recorded = tensors.get(name);
    computed.set(name, { dtype: "F32", shape: [...shape], data: Float32Array.from(data) });
    if (recorded === undefined) return;
    const start = tensors.get(name.replace(/^step\d+\/expect\/after\//, "init/"));
    rows.add(name, data, recorded.data as ArrayLike<number>, start?.data as ArrayLike<number> | undefined);
  };

  for (let s = 0; s < config.steps; s++) {
    const take = Effect.fnUntraced(function* (what: string) {
      const pieces: Float32Array[] = [];
      for (const v of [0, 1]) {
        for (let r = 0; r < world; r++) {
          const name = `step${s}/rank${r}/${what}${v}`;
          const tensor = tensors.get(name);
          if (tensor === undefined) return yield* new FormatError({ file, reason: `it lacks ${name}` });
          pieces.push(Float32Array.from(tensor.data as ArrayLike<number>, Number));
        }
      }
      return concatenated(pieces);
    });
    const result = yield* (yield* program.run({
      images: channelsLast(yield* take("crops"), 2 * N, 3, S * S),
      coords: yield* take("coords"),
      flips: yield* take("flags"),
      learningRate: Float32Array.of(learningRate(firstStep + s, schedule)),
      teacherMomentum: Float32Array.of(teacherMomentum(firstK + s, schedule)),
    }));

    const expect = `step${s}/expect/`;
    for (const term of ["loss", ...TERMS]) compare(`${expect}${term}`, [], result[term]);
    for (let r = 0; r < world; r++) {
      const own = ownLosses(result, r, world, config.num_prototypes, config.group_loss_weight);
      for (const [term, value] of Object.entries(own)) {
        compare(`step${s}/rank${r}/expect/${term}`, [], [value]);
      }
      for (const v of [0, 1]) {
        const first = v * N + r * batch;
        for (const side of ["q", "k"]) {
          for (const part of SIDES) {
            for (const prefix of side === "q" ? ["", "grad_"] : [""]) {
              const x = outputs[`${prefix}${part}_${side}`];
              const size = sizeOf(x.shape.slice(1));
              const data = result[`${prefix}${part}_${side}`].subarray(first * size, (first + batch) * size);
              const name = `step${s}/rank${r}/expect/${prefix}${part}_${side}${v + 1}`;
              if (part === "slots") compare(name, [batch, ...x.shape.slice(1)], data);
              else {
                const [, h, w, C] = x.shape;
                compare(name, [batch, C, h, w], channelsFirst(data, batch, C, h * w));
              }
            }
          }
          const [, h, w, K] = outputs[`score_${side}`].shape;
          const scores = result[`score_${side}`].subarray(first * h * w * K, (first + batch) * h * w * K);
          const active = slotsInUse(scores, batch, h * w, K);
          compare(`step${s}/rank${r}/expect/active_${side}${v + 1}`, [batch, K], active);
        }
      }
    }
    for (const name of step.gradients.keys()) {
      const declared = step.state.declared.get(name)!;
      const [[, tensor]] = toFile(declared, result[`grad/${name}`]);
      compare(`${expect}grad/${name}`, tensor.shape, tensor.data);
    }
    for (const [name, tensor] of yield* download(step.state, state)) {
      if (!name.startsWith("optimizer.")) compare(`${expect}after/${name}`, tensor.shape, tensor.data);
    }
  }
  return { rows: rows.all(), outputs: computed } satisfies Verification as Verification;
});

/** One rank's own loss and its terms, from the per-picture and per-query contributions. */
const ownLosses = (
  result: Readonly<Record<string, Float32Array>>,
  rank: number,
  world: number,
  K: number,
  weight: number,
): Record<string, number> => {
  const own: Record<string, number> = {};
  for (const pair of ["12", "21"]) {
    const group = result[`each/group${pair}`];
    const B = group.length;
    own[`group${pair}`] = total(group.subarray(rank * B / world, (rank + 1) * B / world)) / (B / world);
    const rows = result[`each/rows${pair}`], terms = result[`each/contrast${pair}`];
    const perRank = B / world * K;
    own[`contrast${pair}`] = world * total(terms.filter((_, i) => Math.floor(rows[i] / perRank) === rank));
  }
  own.loss = weight * (own.group12 + own.group21) + (1 - weight) * (own.contrast12 + own.contrast21);
  return own;
};

const total = (values: Float32Array): number => values.reduce((sum, value) => sum + value, 0);

const slotsInUse = (scores: Float32Array, N: number, P: number, K: number): Float32Array => {
  const active = new Float32Array(N * K);
  for (let row = 0; row < N * P; row++) {
    let best = 0;
    for (let k = 1; k < K; k++) if (scores[row * K + k] > scores[row * K + best]) best = k;
    active[Math.floor(row / P) * K + best] = 1;
  }
  return active;
};

const concatenated = (pieces: readonly Float32Array[]): Float32Array => {
  const all = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
};

/** [N, C, P] to [N, P, C]. */
const channelsLast = (data: Float32Array, N: number, C: number, P: number): Float32Array => {
  const out = new Float32Array(data.length);
  for (let n = 0; n < N; n++) {
    for (let c = 0; c < C; c++) {
      for (let p = 0; p < P; p++) out[(n * P + p) * C + c] = data[(n * C + c) * P + p];
    }
  }
  return out;
};

/** [N, P, C] to [N, C, P]. */
const channelsFirst = (data: Float32Array, N: number, C: number, P: number): Float32Array =>
  channelsLast(data, N, P, C);

/** How errors are measured and bounded, group by group (the recordings' README). */
const GROUPS = {
  losses: { limit: 5e-5, tolerance: "5e-5 relative" },
  activations: { limit: 2e-4, tolerance: "2e-4 · ‖want‖" },
  "active slots": { limit: 0, tolerance: "equal" },
  "gradients of activations": { limit: 1e-3, tolerance: "1e-3 · ‖want‖" },
  "gradients of parameters": { limit: 1e-3, tolerance: "1e-3 · ‖want‖" },
  "gradients of biases before a norm": { limit: 1e-4, tolerance: "1e-4 absolute" },
  "state after the step": { limit: 1, tolerance: "1e-3 · ‖change‖ + 2.5e-7 · ‖want‖ (as a share)" },
  "biases before a norm after the step": { limit: 1e-4, tolerance: "1e-4 absolute" },
  "counters of batches": { limit: 0, tolerance: "equal" },
} as const;
type Group = keyof typeof GROUPS;

const groupOf = (name: string): Group => {
  const beforeNorm = /mlp\.[03]\.bias$/.test(name);
  if (name.includes("/grad/")) {
    return beforeNorm ? "gradients of biases before a norm" : "gradients of parameters";
  }
  if (name.endsWith("num_batches_tracked")) return "counters of batches";
  if (name.includes("/after/")) {
    return beforeNorm ? "biases before a norm after the step" : "state after the step";
  }
  const what = name.slice(name.lastIndexOf("/") + 1);
  if (what.startsWith("active")) return "active slots";
  if (what.startsWith("grad_")) return "gradients of activations";
  return what.includes("_") ? "activations" : "losses";
};

/** The worst error of each group so far. */
class Rows {
  readonly #worst = new Map<Group, { error: number; name: string; count: number }>();

  add(name: string, got: ArrayLike<number>, want: ArrayLike<number>, start?: ArrayLike<number>) {
    const group = groupOf(name);
    const error = got.length === want.length ? this.#error(group, got, want, start) : Infinity;
    const worst = this.#worst.get(group);
    const count = (worst?.count ?? 0) + 1;
    // NaN is worse than any number.
    const isWorse = worst === undefined || !(error <= worst.error);
    this.#worst.set(group, isWorse ? { error, name, count } : { ...worst, count });
  }

  #error(group: Group, got: ArrayLike<number>, want: ArrayLike<number>, start?: ArrayLike<number>): number {
    let difference = 0, norm = 0, change = 0, largest = 0;
    for (let i = 0; i < want.length; i++) {
      const w = Number(want[i]), d = got[i] - w;
      difference += d * d;
      norm += w * w;
      change += start === undefined ? 0 : (w - Number(start[i])) ** 2;
      largest = Number.isNaN(d) ? NaN : Math.max(largest, Math.abs(d));
    }
    const relative = (part: number, whole: number) => (part === 0 ? 0 : Math.sqrt(part / whole));
    if (group === "state after the step") {
      return relative(difference, (1e-3 * Math.sqrt(change) + 2.5e-7 * Math.sqrt(norm)) ** 2);
    }
    const absolute = /biases|active|counters/.test(group);
    return absolute ? largest : relative(difference, norm);
  }

  all(): VerifyRow[] {
    return [...this.#worst].map(([group, { error, name, count }]) => ({
      group: `${group} (${count})`,
      worst: error,
      tolerance: GROUPS[group].tolerance,
      holds: error <= GROUPS[group].limit,
      note: name,
    }));
  }
}
