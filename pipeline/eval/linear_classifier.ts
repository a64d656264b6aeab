/**
 * A linear classifier on frozen features: one fully connected layer, trained by SGD with momentum on a cosine
 * schedule.
 */
import { Effect, type Scope } from "effect";
import { mul, sub } from "../../ops/arithmetic.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { crossEntropyRows } from "../../ops/cross_entropy.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import { constant, input, type Tensor } from "../../ops/graph/tensor.ts";
import { sum } from "../../ops/reduce.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile, type DeviceState } from "../../ops/runtime/program.ts";
import type { RunError } from "../inference/descriptors.ts";
import { linear } from "../model/network.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { optimize } from "../optim/optimize.ts";
import { upload } from "../run/state.ts";
import { checkpointShapes } from "../run/state_layout.ts";

/** Brings features to a common scale, channel by channel: (x − mean) · scale. */
export interface FeatureScale {
  /** [C]. */
  readonly mean: Float32Array;
  /** [C]. */
  readonly scale: Float32Array;
}

/**
 * Finds the scale of features: each channel gets mean 0 and variance 1 / C, so that a row's squared norm is 1 on
 * average.
 */
export class ScaleOf {
  readonly #sums: Float64Array;
  readonly #squares: Float64Array;
  #rows = 0;

  /** Without any features so far. */
  constructor(readonly channels: number) {
    this.#sums = new Float64Array(channels);
    this.#squares = new Float64Array(channels);
  }

  /** Adds features, [n, C]. */
  add(rows: Float32Array): void {
    const C = this.channels;
    for (let at = 0; at < rows.length; at += C) {
      for (let c = 0; c < C; c++) {
        this.#sums[c] += rows[at + c];
        this.#squares[c] += rows[at + c] ** 2;
      }
    }
    this.#rows += rows.length / C;
  }

  /** The scale of all features so far. */
  result(): FeatureScale {
    const C = this.channels, n = this.#rows;
    const mean = this.#sums.map((sum) => sum / n);
    const scale = this.#squares.map((square, c) => {
      const variance = square / n - mean[c] ** 2;
      return variance > 1e-12 * (1 + mean[c] ** 2) ? 1 / Math.sqrt(variance * C) : 0; // 0 for a channel that never changes
    });
    return { mean: Float32Array.from(mean), scale: Float32Array.from(scale) };
  }
}

/** How to train by SGD. */
export interface TrainingOptions {
  /** The first learning rate; it falls to 0 along half a cosine. */
  readonly rate: number;
  /** The momentum. */
  readonly momentum: number;
  /** The weight decay. */
  readonly weightDecay: number;
}

/** A classifier and its training. */
export interface ClassifierOptions extends TrainingOptions {
  /** Channels C of the features. */
  readonly channels: number;
  /** The number of classes. */
  readonly classes: number;
  /** The scale of the features. */
  readonly scale: FeatureScale;
  /** Rows R of a step. */
  readonly rowsPerStep: number;
  /** The number of steps. */
  readonly steps: number;
}

/** Rows of a step. */
export interface LabelledRows {
  /** Features, [R, C]. */
  readonly rows: Float32Array;
  /** Classes, from 0, [R]. */
  readonly labels: Uint32Array;
  /** How many of the rows are to be trained on, from the first on. */
  readonly count: number;
}

/** A classifier that can be trained. */
export interface LinearClassifier {
  /** Its parameters on the device. */
  readonly state: DeviceState;
  /** The graph from features [..., C] to scores [..., classes], for programs that are compiled with `state`. */
  readonly logits: (features: Tensor) => Tensor;
  /** Submits a step, and waits for the loss of the step before; null at the first step. */
  readonly step: (rows: LabelledRows) => Effect.Effect<number | null, RunError>;
}

/** A classifier that starts at zero. It lives as long as the scope. Fails with PlanError or GpuError. */
export const linearClassifier: (
  options: ClassifierOptions,
) => Effect.Effect<LinearClassifier, PlanError | GpuError, Gpu | Scope.Scope> = Effect.fn("linearClassifier")(
  function* (
    { channels: C, classes, scale, rowsPerStep: R, steps, ...training },
  ) {
    const builder = new StateBuilder();
    const network = student(builder, null);
    const logits = (features: Tensor): Tensor => {
      const scaled = mul(sub(features, constant(scale.mean, [C])), constant(scale.scale, [C]));
      return linear(network, "classifier", scaled, classes);
    };

    const scores = logits(input("rows", [R, C]));
    const all = constant(Uint32Array.of(classes));
    const losses = crossEntropyRows(scores, input("labels", [R], "u32"), input("count", [1], "u32"), all);
    const loss = mul(sum(losses), input("share", [])); // share: 1 / count
    optimize({ state: builder, loss, metrics: {} }, input("rate", []), { ...training, optimizer: "sgd" });

    // The problem is convex, so that no random values are needed.
    const zeros = new Map(
      Array.from(
        checkpointShapes(builder),
        ([name, shape]) => [name, { shape, data: new Float32Array(sizeOf(shape)) }],
      ),
    );
    const state = yield* upload(builder, zeros);
    const program = yield* compile(
      { label: "the classifier", outputs: { loss }, updates: builder.updates },
      state,
    );

    let step = 0;
    let waiting: Effect.Success<ReturnType<typeof program.run>> | null = null;
    return {
      state,
      logits,
      step: Effect.fnUntraced(function* ({ rows, labels, count }: LabelledRows) {
        const before = waiting;
        waiting = yield* program.run({
          rows,
          labels,
          count: Uint32Array.of(count),
          share: Float32Array.of(1 / Math.max(count, 1)),
          rate: Float32Array.of(0.5 * training.rate * (1 + Math.cos(Math.PI * step++ / steps))),
        });
        return before === null ? null : (yield* before).loss[0];
      }),
    };
  },
);
