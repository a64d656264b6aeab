/** Weighted k-nearest-neighbour classification of images by frozen features. */
import { Effect, Stream } from "effect";
import type { ClassFolders, ClassifiedFile } from "../../data/datasets/class_folders.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import type { NamedDescriptor, RunError } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { leftOut } from "../run/bad_images.ts";
import {
  type ClassificationScore,
  classificationScore,
  type ClassifiedPicture,
  type UsedImages,
} from "./classification.ts";
import { describedBatches, type PictureError } from "./described.ts";
import { neighbourBank, type Neighbours, vote } from "./nearest_neighbours.ts";

/** What to evaluate, and on what. */
export interface KnnOptions {
  /** The images and their classes. */
  readonly folders: ClassFolders;
  /** Descriptors of whole images; the first is the one in question. */
  readonly descriptors: readonly NamedDescriptor[];
  /** Values of k. */
  readonly neighbours: readonly number[];
  /** The temperature of the votes. */
  readonly temperature: number;
  /** How to make squares of images. */
  readonly frame: Frame;
  /** Images at a time. */
  readonly batch: number;
  /** The share of the images of each split that may be unreadable; they are left out. */
  readonly maxBadImages: number;
}

/** The evaluation of descriptors by k-NN. */
export interface KnnEvaluation {
  /** The images that it has used. */
  readonly used: UsedImages;
  /** The score of each descriptor with each k. */
  readonly results: readonly (ClassificationScore & { readonly method: string; readonly k: number })[];
  /**
   * The images of `val` as the first descriptor and the first k classify them, with the nearest training images
   * (paths).
   */
  readonly pictures: readonly (ClassifiedPicture & { readonly nearest: readonly string[] })[];
}

/** Nearest training images that are kept for each image of `val`. */
const NEAREST = 4;

/** How evaluations by classification can fail. */
export type ClassificationError = PictureError | PlanError | RunError;

/** Classifies the images of `val` by those of `train`, whose features are not kept in memory. */
export const evaluateKnn: (
  options: KnnOptions,
) => Effect.Effect<KnnEvaluation, ClassificationError, Gpu> = Effect.fn("evaluateKnn")(function* (options) {
  const { folders, descriptors, neighbours, temperature, frame, batch, maxBadImages } = options;
  const all = descriptors.map(({ descriptor }) => descriptor);
  const most = Math.min(Math.max(...neighbours, NEAREST), folders.train.length);
  const paths = (split: readonly ClassifiedFile[]) => split.map(({ file }) => file);
  const [badTrain, badVal] = [folders.train, folders.val].map((split) => leftOut(paths(split), maxBadImages));

  const train: ClassifiedFile[] = [], val: ClassifiedFile[] = []; // as far as they can be decoded
  const queries = all.map(({ channels }) => new Float32Array(folders.val.length * channels));
  const forVal = { stage: "describing val", batch, frame, bad: badVal };
  yield* describedBatches(paths(folders.val), all, forVal).pipe(
    Stream.runForEach(({ places, features }) =>
      Effect.sync(() => {
        features.forEach((rows, d) => queries[d].set(rows, val.length * all[d].channels));
        val.push(...places.map((place) => folders.val[place]));
      })
    ),
  );
  const banks = yield* Effect.forEach(
    all,
    ({ channels }, d) =>
      neighbourBank(queries[d].subarray(0, val.length * channels), {
        ...{ channels, most },
        bankSize: folders.train.length,
      }),
  );
  const forTrain = { stage: "comparing train", batch, frame, bad: badTrain };
  yield* describedBatches(paths(folders.train), all, forTrain).pipe(
    Stream.runForEach(({ places, features }) => {
      train.push(...places.map((place) => folders.train[place]));
      return Effect.forEach(banks, ({ add }, d) => add(features[d]), { discard: true });
    }),
  );

  const labels = train.map(({ label }) => label);
  const results: KnnEvaluation["results"][number][] = [];
  let nearest: readonly Neighbours[] = [];
  for (const [d, { found }] of banks.entries()) {
    const own = yield* found;
    if (d === 0) nearest = own;
    for (const k of neighbours) {
      const ranked = own.map((each) => vote(each, labels, { k, temperature }));
      results.push({ method: descriptors[d].method, k, ...classificationScore(ranked, val) });
    }
  }
  return {
    used: {
      ...{ train: train.length, val: val.length },
      leftOut: [...badTrain.reasons(), ...badVal.reasons()],
    },
    results,
    pictures: val.map(({ file, label }, i) => ({
      file,
      label,
      ranked: vote(nearest[i], labels, { k: neighbours[0], temperature }).slice(0, 5),
      nearest: Array.from(nearest[i].places.subarray(0, NEAREST), (place) => train[place].file),
    })),
  } satisfies KnnEvaluation as KnnEvaluation;
}, Effect.scoped);
