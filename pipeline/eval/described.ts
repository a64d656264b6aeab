/** Pictures of a list, framed and described: every picture is decoded once, however many descriptors look at it. */
import { Effect, Schema, Stream } from "effect";
import { release } from "../../data/images/release.ts";
import type { Descriptor } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { framedBatches } from "../inference/framed_batches.ts";
import { EvaluationProgress } from "./progress.ts";

/** A picture cannot be decoded: scores without it would be those of another data set. */
export class PictureError
  extends Schema.TaggedError<PictureError>()("PictureError", { problem: Schema.String }) {
  override get message() {
    return `${this.problem}. Mend it or leave it out: an evaluation needs all of its pictures`;
  }
}

export interface DescribedBatch {
  readonly first: number; // place of its first picture in the list
  readonly count: number;
  /** For each descriptor, [count, grid, grid, channels]. */
  readonly features: readonly Float32Array[];
}

/** Pictures [count, S, S] of a list, in its order, a word a pixel. Fails with a `PictureError`. */
export const pictureBatches = (
  files: readonly string[],
  { stage, batch, frame }: { readonly stage: string; readonly batch: number; readonly frame: Frame },
) =>
  framedBatches(files, { batch, frame }).pipe(
    Stream.mapEffect(Effect.fnUntraced(function* ({ first, pixels, problems }) {
      const problem = problems.find((problem) => problem !== null);
      if (problem !== undefined && problem !== null) return yield* new PictureError({ problem });
      const progress = yield* EvaluationProgress;
      yield* progress(stage, first, files.length);
      return { first, pixels, count: problems.length };
    })),
    Stream.onEnd(
      Effect.flatMap(EvaluationProgress, (progress) => progress(stage, files.length, files.length)),
    ),
  );

/** The same as descriptors see them. */
export const describedBatches = (
  files: readonly string[],
  descriptors: readonly Descriptor[],
  options: Parameters<typeof pictureBatches>[1],
) =>
  pictureBatches(files, options).pipe(
    Stream.mapEffect(Effect.fnUntraced(function* ({ first, pixels, count }) {
      const features = yield* Effect.forEach(descriptors, ({ describe }) => describe(pixels, count));
      release(pixels);
      return { first, count, features } satisfies DescribedBatch as DescribedBatch;
    })),
  );

/** At most `count` of a list, evenly from all of it; all where it is null. */
export const evenly = <A>(all: readonly A[], count: number | null): readonly A[] =>
  count === null || count >= all.length
    ? all
    : Array.from({ length: count }, (_, i) => all[Math.floor(i * all.length / count)]);
