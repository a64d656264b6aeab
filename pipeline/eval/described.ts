/**
 * Images of a list, resized, cropped and described: every image is decoded once, however many descriptors there are.
 */
import { Data, Effect, Stream } from "effect";
import { release } from "../../data/images/release.ts";
import type { Descriptor, RunError } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { framedBatches } from "../inference/framed_batches.ts";
import type { WorkerError } from "../run/worker.ts";
import { EvaluationProgress } from "./progress.ts";

/** An image cannot be decoded. Scores without it would be those of another data set. */
export class PictureError extends Data.Error<{ readonly reason: string }> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "PictureError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `${this.reason}. Mend it or leave it out: an evaluation needs all of its pictures`;
  }
}

/** The images of a batch. */
export interface PictureBatch {
  /** The index of its first image in the list. */
  readonly first: number;
  /** The number of images. */
  readonly count: number;
  /** [count, S, S], a word a pixel. */
  readonly pixels: Uint32Array<ArrayBuffer>;
  /** Width and height of each image in its file, [count, 2]. */
  readonly sizes: Uint32Array;
}

/** The features of a batch's images. */
export interface DescribedBatch {
  /** The index of its first image in the list. */
  readonly first: number;
  /** The number of images. */
  readonly count: number;
  /** For each descriptor, [count, grid, grid, channels]. */
  readonly features: readonly Float32Array[];
}

/** How to go through the images of a list. */
export interface BatchOptions {
  /** The name of the stage, for its progress. */
  readonly stage: string;
  /** Images at a time. */
  readonly batch: number;
  /** How to make squares of images. */
  readonly frame: Frame;
}

/** The images of a list, in its order. Fails with a `PictureError` or `WorkerError`. */
export const pictureBatches = (
  files: readonly string[],
  { stage, batch, frame }: BatchOptions,
): Stream.Stream<PictureBatch, PictureError | WorkerError> =>
  framedBatches(files, { batch, frame }).pipe(
    Stream.mapEffect(Effect.fnUntraced(function* ({ first, pixels, sizes, problems }) {
      const problem = problems.find((problem) => problem !== null);
      if (problem !== undefined && problem !== null) return yield* new PictureError({ reason: problem });
      const progress = yield* EvaluationProgress;
      yield* progress(stage, first, files.length);
      return { first, pixels, sizes, count: problems.length };
    })),
    Stream.onEnd(
      Effect.flatMap(EvaluationProgress, (progress) => progress(stage, files.length, files.length)),
    ),
  );

/**
 * The features of the images of a list, in its order. Fails with a `PictureError`, `WorkerError`, or as describing
 * does.
 */
export const describedBatches = (
  files: readonly string[],
  descriptors: readonly Descriptor[],
  options: BatchOptions,
): Stream.Stream<DescribedBatch, PictureError | WorkerError | RunError> =>
  pictureBatches(files, options).pipe(
    Stream.mapEffect(Effect.fnUntraced(function* ({ first, pixels, count }) {
      const features = yield* Effect.forEach(descriptors, ({ describe }) => describe(pixels, count));
      release(pixels);
      return { first, count, features } satisfies DescribedBatch as DescribedBatch;
    })),
  );

/** At most `count` elements, evenly from a whole list; all where `count` is null. */
export const evenly = <A>(all: readonly A[], count: number | null): readonly A[] =>
  count === null || count >= all.length
    ? all
    : Array.from({ length: count }, (_, i) => all[Math.floor(i * all.length / count)]);
