/** Classification by one linear layer on the features of whole images, which are kept in memory. */
import { Effect } from "effect";
import { permutation } from "../../data/random/random.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { input } from "../../ops/graph/tensor.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import type { RunError } from "../inference/descriptors.ts";
import type { RankedClass } from "./classification.ts";
import { linearClassifier, ScaleOf, type TrainingOptions } from "./linear_classifier.ts";
import { EvaluationProgress } from "./progress.ts";

/** Images to train on. */
export interface LabelledFeatures {
  /** The features of each image, [C]. */
  readonly features: readonly Float32Array[];
  /** The class of each image, from 0. */
  readonly labels: readonly number[];
}

/** How to train the layer. */
export interface ProbeOptions extends TrainingOptions {
  /** Passes over the images. */
  readonly epochs: number;
  /** Images of a step. */
  readonly batchSize: number;
  /** The number of classes. */
  readonly classes: number;
  /** The seed of the order of images. */
  readonly seed: number;
  /** The name of the stage, for its progress. */
  readonly stage: string;
}

/** The predictions of a trained layer. */
export interface ProbeResult {
  /** For each image, the five likeliest classes, the likeliest first, with their probabilities. */
  readonly ranked: readonly (readonly RankedClass[])[];
  /** The last loss; null where there was no step. */
  readonly loss: number | null;
}

/** The word of a random key that tells the orders of a probe's epochs from the other draws of a seed. */
const PROBE = 7;

/**
 * Trains a layer on labelled features, and classifies the images whose features are `asked`, [C] each. The same seed
 * gives the same bits. Fails with PlanError, or as running a program does.
 */
export const linearProbe: (
  train: LabelledFeatures,
  asked: readonly Float32Array[],
  options: ProbeOptions,
) => Effect.Effect<ProbeResult, PlanError | RunError, Gpu> = Effect.fn("linearProbe")(function* (
  { features, labels },
  asked,
  { stage, ...options },
) {
  const progress = yield* EvaluationProgress;
  const C = features[0].length;
  const R = Math.min(options.batchSize, features.length);
  const perEpoch = Math.floor(features.length / R);
  const steps = options.epochs * perEpoch;
  const scale = new ScaleOf(C);
  for (const row of features) scale.add(row);
  const classifier = yield* linearClassifier({
    ...options,
    channels: C,
    scale: scale.result(),
    rowsPerStep: R,
    steps,
  });

  let loss: number | null = null;
  for (let epoch = 0; epoch < options.epochs; epoch++) {
    yield* progress(stage, epoch, options.epochs);
    const order = permutation(features.length, options.seed, PROBE, epoch);
    for (let step = 0; step < perEpoch; step++) {
      const places = order.subarray(step * R, (step + 1) * R);
      const rows = new Float32Array(R * C);
      places.forEach((place, i) => rows.set(features[place], i * C));
      loss = yield* classifier.step({
        rows,
        labels: Uint32Array.from(places, (place) => labels[place]),
        count: R,
      });
    }
  }
  yield* progress(stage, options.epochs, options.epochs);

  const logits = classifier.logits(input("rows", [R, C]));
  const program = yield* compile({ label: "the classifier", outputs: { logits } }, classifier.state);
  const ranked: (readonly RankedClass[])[] = [];
  for (let first = 0; first < asked.length; first += R) {
    const some = asked.slice(first, first + R);
    const rows = new Float32Array(R * C);
    some.forEach((row, i) => rows.set(row, i * C));
    const { logits } = yield* yield* program.run({ rows });
    some.forEach((_, i) =>
      ranked.push(likeliest(logits.subarray(i * options.classes, (i + 1) * options.classes)))
    );
  }
  return { ranked, loss };
}, Effect.scoped);

const likeliest = (logits: Float32Array): readonly RankedClass[] => {
  const top = logits.reduce((most, value) => Math.max(most, value), -Infinity);
  const weights = Array.from(logits, (value) => Math.exp(value - top));
  const whole = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight, label) => ({ label, share: weight / whole }))
    .sort((a, b) => b.share - a.share).slice(0, 5);
};
