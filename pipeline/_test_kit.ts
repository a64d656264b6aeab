/** What tests of runs share: a tiny network, a run of it, and one step. */
import { join } from "node:path";
import { Effect, type Scope } from "effect";
import { testFolder, writeNoise } from "../data/_test_kit.ts";
import { numbers } from "../ops/_test_kit.ts";
import { type Shape, sizeOf } from "../ops/graph/shape.ts";
import { input, type Tensor } from "../ops/graph/tensor.ts";
import { type Config, configure } from "./pretrain/config.ts";
import { rateInputs, slotConStep, type Step, type StepOptions } from "./pretrain/step.ts";
import type { ConfigError } from "./run/options.ts";
import type { StateTensor } from "./run/state_layout.ts";

/** Four photographs. */
export const photographs: readonly string[] = ["camera_gray", "astronaut_444", "coffee_420", "retina_422"]
  .map((name) => join(import.meta.dirname!, "../testdata/augment/pictures", `${name}.jpg`));

const NETWORK = {
  arch: "resnet18",
  width: 8,
  outputStride: 8,
  dimHidden: 16,
  dimOut: 8,
  numPrototypes: 6,
} as const;

/** A run of a tiny network that takes a moment, whose folder is gone at the end of the scope. */
export const tinyRun = Effect.fnUntraced(function* (
  change: Partial<Config> = {},
): Effect.fn.Return<Config, ConfigError, Scope.Scope> {
  return {
    ...yield* configure(null),
    ...NETWORK,
    ...{ imageSize: 32, batchSize: 4, epochs: 4, warmupEpoch: 1, baseLr: 4, numWorkers: 1, saveFreq: 100 },
    outputDir: join(yield* testFolder, "run"),
    ...change,
  };
});

/** The same with twelve pictures of noise to train on. */
export const tinyRunOnNoise = Effect.fnUntraced(function* (change: Partial<Config> = {}) {
  const config = yield* tinyRun(change);
  const folder = yield* testFolder;
  return { config, images: yield* Effect.promise(() => writeNoise(folder)) };
});

/** A step of a tiny network on `batch` pictures, in two views of side `size`. */
export const tinyStep = (batch: number, size: number, change: Partial<StepOptions> = {}): Step => {
  const views: Record<"images" | "coords" | "flips", Tensor> = {
    images: input("images", [2 * batch, size, size, 3]),
    coords: input("coords", [2 * batch, 4]),
    flips: input("flips", [2 * batch]),
  };
  return slotConStep(views, rateInputs(), {
    ...NETWORK,
    ...{ teacherTemp: 0.07, studentTemp: 0.1, centerMomentum: 0.9, groupLossWeight: 0.5 },
    ...{ optimizer: "lars", weightDecay: 1e-5, momentum: 0.9 },
    ...change,
  });
};

/** Inputs of such a step: pictures of noise, views of the whole picture that are not flipped. */
export const tinyInputs = (batch: number, size: number, seed?: number): Record<string, Float32Array> => ({
  images: numbers(2 * batch * size * size * 3, seed),
  coords: Float32Array.from({ length: 8 * batch }, (_, i) => i % 4 < 2 ? 0 : 1),
  flips: new Float32Array(2 * batch),
  learningRate: Float32Array.of(0.1),
  teacherMomentum: Float32Array.of(0.99),
});

/** Weights and statistics that are all different and under which no map dies out, by their names and shapes in files. */
export const livelyValues = (shapes: Iterable<readonly [string, Shape]>): Map<string, StateTensor> => {
  let seed = 0;
  return new Map(
    Array.from(shapes, ([name, shape]): [string, StateTensor] => {
      seed++;
      if (name.endsWith("num_batches_tracked")) return [name, { shape, data: Float32Array.of(seed) }];
      const [middle, spread] = name.endsWith("_var")
        ? [1, 0.5]
        : name.endsWith("_mean") || name.endsWith("bias")
        ? [0, 0.3]
        : shape.length === 4
        ? [0, Math.sqrt(6 / (shape[1] * shape[2] * shape[3]))]
        : [0.8, 0.4];
      return [name, { shape, data: numbers(sizeOf(shape), seed).map((value) => middle + spread * value) }];
    }),
  );
};
