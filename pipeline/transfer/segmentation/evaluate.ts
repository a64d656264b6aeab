/** Scores a segmentor on labelled images. */
import { Data, Effect, Stream } from "effect";
import type { SegmentationSet } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { release } from "../../../data/images/release.ts";
import type { PlanError } from "../../../ops/compiler/limits.ts";
import type { Gpu } from "../../../ops/runtime/gpu.ts";
import { extremes } from "../../eval/extremes.ts";
import { EvaluationProgress } from "../../eval/progress.ts";
import type { RunError } from "../../inference/descriptors.ts";
import { type BadImages, leftOut, type TooManyBadImagesError } from "../../run/bad_images.ts";
import type { WorkerError } from "../../run/worker.ts";
import type { PredictedImage } from "./prediction_pictures.ts";
import {
  addToConfusion,
  type Confusion,
  noConfusion,
  type SegmentationScores,
  segmentationScores,
} from "./scores.ts";
import { savedSegmenter, type Segment } from "./segment.ts";
import type { SavedSegmentor } from "./weights.ts";
import { wholeImages } from "./whole_images.ts";

/** The score of one image. */
export interface ScoredImage {
  /** Its file. */
  readonly file: string;
  /** The share of its labelled pixels with the right class: 0 … 1; NaN where none is labelled. */
  readonly aAcc: number;
  /** Mean intersection over union of the classes that are labelled or predicted in it: 0 … 1; NaN where none is. */
  readonly mIoU: number;
}

/** An image to be shown, and its score. */
export interface ShownPrediction extends ScoredImage, PredictedImage {}

/** The evaluation of a segmentor. */
export interface SegmentorEvaluation {
  /** The scores over all images. */
  readonly scores: SegmentationScores;
  /** The counts that they are of. */
  readonly confusion: Confusion;
  /** The score of every image that could be read. */
  readonly images: readonly ScoredImage[];
  /** Why others could not be read: sentences that name the file. */
  readonly leftOut: readonly string[];
  /** The images with most pixels right. */
  readonly best: readonly ShownPrediction[];
  /** The images with fewest. */
  readonly worst: readonly ShownPrediction[];
}

/** Nothing can be scored. */
export class NothingScoredError extends Data.Error<{ readonly reason: string }> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "NothingScoredError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** Why, as a sentence. */
  override get message(): string {
    return `Cannot score any picture: ${this.reason}`;
  }
}

/** How an evaluation can fail. */
export type SegmentorEvaluationError =
  | NothingScoredError
  | TooManyBadImagesError
  | WorkerError
  | PlanError
  | RunError;

/**
 * Scores a segmentor on all images of a set, each at its original size. Images that cannot be read are left out. Memory
 * holds the counts and one score an image; images to be shown are segmented once more. Fails with a
 * `TooManyBadImagesError` where more of them than `maxBadImages` allows cannot be read, or with a `NothingScoredError`
 * where no pixel is labelled.
 */
export const evaluateSegmentor: (
  saved: SavedSegmentor,
  set: Pick<SegmentationSet, "samples">,
) => Effect.Effect<SegmentorEvaluation, SegmentorEvaluationError, Gpu> = Effect.fn("evaluateSegmentor")(
  function* (saved, { samples }) {
    const { config, classes } = saved;
    const segment = yield* savedSegmenter(saved);
    const confusion = noConfusion(classes.length);
    const images: (ScoredImage & { readonly place: number })[] = [];
    const bad = leftOut(samples.map(({ image }) => image), config.maxBadImages);
    yield* predicted(segment, samples, { stage: "scoring", ...config }, ({ place, ...image }) => {
      const own = noConfusion(classes.length);
      addToConfusion(own, image);
      own.counts.forEach((count, i) => confusion.counts[i] += count);
      const { aAcc, mIoU } = segmentationScores(own);
      images.push({ place, file: image.file, aAcc, mIoU });
    }, bad);
    const scores = segmentationScores(confusion);
    if (Number.isNaN(scores.aAcc)) {
      const reason = `none of the pixels of ${images.length} pictures is labelled`;
      return yield* new NothingScoredError({ reason });
    }

    const { best, worst } = extremes(images, ({ aAcc }) => aAcc);
    const show = Effect.fnUntraced(function* (chosen: readonly number[]) {
      const shown: ShownPrediction[] = [];
      const some = chosen.map((i) => samples[images[i].place]);
      yield* predicted(segment, some, { stage: "drawing", ...config }, ({ place, ...image }) => {
        shown.push({ ...images[chosen[place]], ...image });
      }, bad);
      return shown;
    });
    return {
      ...{ scores, confusion, leftOut: bad.reasons() },
      images: images.map(({ place: _, ...image }) => image),
      best: yield* show(best),
      worst: yield* show(worst),
    };
  },
  Effect.scoped,
);

/** Segments images and hands each to `use`, with its place in the list; adds to `bad` those that cannot be read. */
const predicted = Effect.fnUntraced(function* (
  segment: Segment,
  samples: SegmentationSet["samples"],
  { stage, ...options }: { readonly stage: string } & Parameters<typeof wholeImages>[1],
  use: (image: PredictedImage & { readonly place: number }) => void,
  bad: BadImages<string>,
) {
  const progress = yield* EvaluationProgress;
  yield* wholeImages(samples, options).pipe(
    Stream.runForEach(Effect.fnUntraced(function* (image) {
      const { index } = image;
      if (image.kind === "bad file") yield* bad.add([{ image: samples[index].image, reason: image.reason }]);
      else {
        const { pixels, height, width, original, labels } = image;
        const size = [original.height, original.width] as const;
        const predictions = yield* segment({ pixels, size: [height, width], original: size });
        release(pixels);
        use({ place: index, file: samples[index].image, labels: labels!, predictions });
      }
      yield* progress(stage, index + 1, samples.length);
    })),
  );
});
