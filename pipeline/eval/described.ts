/**
 * Images of a list, resized, cropped and described: every image is decoded once, however many descriptors there are.
 */
import { Effect, Stream } from "effect";
import { release } from "../../data/images/release.ts";
import type { Descriptor, RunError } from "../inference/descriptors.ts";
import { type FramedBatch, framedBatches, type FramedOptions } from "../inference/framed_batches.ts";
import type { TooManyBadImagesError } from "../run/bad_images.ts";
import type { WorkerError } from "../run/worker.ts";
import { EvaluationProgress } from "./progress.ts";

/** The images of a batch that can be decoded. */
export interface PictureBatch {
  /** Their indices in the list, ascending. */
  readonly places: readonly number[];
  /** [places.length, S, S], a word a pixel. */
  readonly pixels: Uint32Array<ArrayBuffer>;
  /** Width and height of each image in its file, [places.length, 2]. */
  readonly sizes: Uint32Array;
}

/** The features of a batch's images. */
export interface DescribedBatch {
  /** Their indices in the list, ascending. */
  readonly places: readonly number[];
  /** For each descriptor, [places.length, grid, grid, channels]. */
  readonly features: readonly Float32Array[];
}

/** How to go through the images of a list. */
export interface BatchOptions extends FramedOptions {
  /** The name of the stage, for its progress. */
  readonly stage: string;
}

/** How going through images can fail. */
export type PictureError = TooManyBadImagesError | WorkerError;

/** The images of a list in its order, without those that cannot be decoded. */
export const pictureBatches = (
  files: readonly string[],
  { stage, ...options }: BatchOptions,
): Stream.Stream<PictureBatch, PictureError> =>
  framedBatches(files, options).pipe(
    Stream.tap(({ first }) =>
      Effect.flatMap(EvaluationProgress, (progress) => progress(stage, first, files.length))
    ),
    Stream.map(goodOnes),
    Stream.filter(({ places }) => places.length > 0),
    Stream.onEnd(
      Effect.flatMap(EvaluationProgress, (progress) => progress(stage, files.length, files.length)),
    ),
  );

/** The images of a batch that have been decoded, moved together. */
const goodOnes = ({ first, pixels, sizes, problems }: FramedBatch): PictureBatch => {
  const words = pixels.length / problems.length;
  const good = [...problems.keys()].filter((i) => problems[i] === null);
  good.forEach((from, to) => {
    pixels.copyWithin(to * words, from * words, (from + 1) * words);
    sizes.copyWithin(2 * to, 2 * from, 2 * from + 2);
  });
  return {
    places: good.map((i) => first + i),
    pixels: pixels.subarray(0, good.length * words),
    sizes: sizes.subarray(0, 2 * good.length),
  };
};

/** The features of the images of a list, in its order, without those that cannot be decoded. */
export const describedBatches = (
  files: readonly string[],
  descriptors: readonly Descriptor[],
  options: BatchOptions,
): Stream.Stream<DescribedBatch, PictureError | RunError> =>
  pictureBatches(files, options).pipe(
    Stream.mapEffect(Effect.fnUntraced(function* ({ places, pixels }) {
      const features = yield* Effect.forEach(descriptors, ({ describe }) => describe(pixels, places.length));
      release(pixels);
      return { places, features } satisfies DescribedBatch as DescribedBatch;
    })),
  );

/** At most `count` elements, evenly from a whole list; all where `count` is null. */
export const evenly = <A>(all: readonly A[], count: number | null): readonly A[] =>
  count === null || count >= all.length
    ? all
    : Array.from({ length: count }, (_, i) => all[Math.floor(i * all.length / count)]);
