/** A linear classifier on frozen features: one fully connected layer, trained by SGD with momentum on a cosine schedule. */
import { Effect } from "effect";
import { mul, sub } from "../../ops/arithmetic.ts";
import { crossEntropyRows } from "../../ops/cross_entropy.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import { constant, input, type Tensor } from "../../ops/graph/tensor.ts";
import { sum } from "../../ops/reduce.ts";
import { compile } from "../../ops/runtime/program.ts";
import { linear } from "../model/network.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { optimize } from "../optim/optimize.ts";
import { upload } from "../run/state.ts";
import { checkpointShapes } from "../run/state_layout.ts";

/** How to bring features to a common scale, channel by channel: (x − mean) · scale. */
export interface FeatureScale {
  readonly mean: Float32Array;
  readonly scale: Float32Array;
}

/** Adds up features to their scale: each channel to mean 0 and variance 1 / C, so that a row's squared norm is 1 on average. */
export class ScaleOf {
  readonly #sums: Float64Array;
  readonly #squares: Float64Array;
  #rows = 0;

  constructor(readonly channels: number) {
    this.#sums = new Float64Array(channels);
    this.#squares = new Float64Array(channels);
  }

  /** Rows [n, C]. */
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

  result(): FeatureScale {
    const C = this.channels, n = this.#rows;
    const mean = this.#sums.map((sum) => sum / n);
    const scale = this.#squares.map((square, c) => {
      const variance = square / n - mean[c] ** 2;
      return variance > 1e-12 * (1 + mean[c] ** 2) ? 1 / Math.sqrt(variance * C) : 0; // 0: a channel that never changes
    });
    return { mean: Float32Array.from(mean), scale: Float32Array.from(scale) };
  }
}

export interface TrainingOptions {
  readonly rate: number; // at the start; it falls to 0 along half a cosine
  readonly momentum: number;
  readonly weightDecay: number;
}

/** Rows to learn from, [R, C], the first `count` of which are there, with their classes (0 …). */
export interface LabelledRows {
  readonly rows: Float32Array;
  readonly labels: Uint32Array;
  readonly count: number;
}

/**
 * A classifier of features [..., C] of a scale, starting at zero. `step` takes one of `steps` steps on `rowsPerStep`
 * rows, and hands on the loss of the step before, null at the first; `logits` are a graph of scores for programs that are
 * compiled with `state`. Lives as long as the scope.
 */
export const linearClassifier = Effect.fn("linearClassifier")(function* (
  { channels: C, classes, scale, rowsPerStep: R, steps, ...training }: TrainingOptions & {
    readonly channels: number;
    readonly classes: number;
    readonly scale: FeatureScale;
    readonly rowsPerStep: number;
    readonly steps: number;
  },
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

  // The problem is convex: there is no need to begin at random.
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
});
