/** Scores a run's segmentor on validation images while it trains, and draws what it predicts for some of them. */
import { join } from "node:path";
import { Effect, type Scope, Stream } from "effect";
import type { SegmentationSet } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { release } from "../../../data/images/release.ts";
import { Collective, gatherTexts } from "../../../ops/runtime/collective.ts";
import type { Gpu } from "../../../ops/runtime/gpu.ts";
import type { DeviceState } from "../../../ops/runtime/program.ts";
import { TooManyBadImagesError } from "../../run/bad_images.ts";
import { BEST_CHECKPOINT, checkpointFolder, openCheckpoint } from "../../run/checkpoint_file.ts";
import type { Validated, Validation } from "../../run/train.ts";
import type { WorkerError } from "../../run/worker.ts";
import type { SegmentationConfig } from "./config.ts";
import { addToConfusion, type Confusion, noConfusion, percent, segmentationScores } from "./scores.ts";
import { segmenter, segmenterOptions } from "./segment.ts";
import { drawPredictions } from "./prediction_pictures.ts";
import { SEGMENTATION } from "./task.ts";
import { wholeImages } from "./whole_images.ts";

/** A run as far as its validation depends on it. */
export interface ValidatedRun {
  /** The state on the device. */
  readonly buffers: DeviceState;
  /** Steps done before the run. */
  readonly firstStep: number;
  /** Steps done at its end, when it is scored in any case. */
  readonly lastStep: number;
}

/** How a validation can fail, besides as running a program does. */
export type ValidationError = WorkerError | TooManyBadImagesError;

/**
 * The validation of a run on a set of images. Each of several ranks takes its share of the images, and all get the same
 * scores. Images that cannot be read are named once and left out, up to the share that `maxBadImages` allows.
 */
export const segmentationValidation: (
  config: SegmentationConfig,
  set: SegmentationSet,
  run: ValidatedRun,
) => Effect.Effect<Validation<ValidationError>, never, Gpu | Scope.Scope> = Effect.fn(
  "segmentationValidation",
)(
  function* (config, { samples, classes }, { buffers, firstStep, lastStep }) {
    const { rank, world } = yield* Collective;
    const segment = yield* segmenter(segmenterOptions(config, classes.length), buffers);
    const own = samples.filter((_, i) => i % world === rank);
    const shown = rank === 0 ? spread(own.length, config.shownImages) : [];
    const pictures = drawPredictions(join(config.outputDir, "predictions"), classes);
    const warned = new Set<string>();
    const every = config.validateEvery ?? Math.ceil(config.iterations / 10);

    const scored = Effect.fnUntraced(function* (done: number) {
      const confusion = noConfusion(classes.length);
      const bad: string[] = [];
      const drawn = yield* pictures(done);
      yield* wholeImages(own, config).pipe(
        Stream.runForEach(Effect.fnUntraced(function* (picture) {
          if (picture.kind === "bad file") return void bad.push(picture.reason);
          const { index, height, width, original } = picture;
          const predictions = yield* segment({
            pixels: picture.pixels,
            size: [height, width],
            original: [original.height, original.width],
          });
          const labels = picture.labels!;
          addToConfusion(confusion, { labels, predictions });
          if (shown.includes(index)) yield* drawn.add({ file: own[index].image, labels, predictions });
          release(picture.pixels, labels);
        })),
      );
      for (const reason of bad.filter((reason) => !warned.has(reason))) {
        warned.add(reason);
        yield* Effect.logWarning(`${reason}. It is left out of the validation.`);
      }
      const all = yield* fromAllRanks(confusion, bad);
      if (all.bad.length > config.maxBadImages * samples.length || all.bad.length === samples.length) {
        const { maxBadImages } = config;
        return yield* new TooManyBadImagesError({ reasons: all.bad, images: samples.length, maxBadImages });
      }
      return {
        confusion: all.confusion,
        used: samples.length - all.bad.length,
        images: yield* drawn.finished,
      };
    });

    return {
      best: yield* bestSoFar(config, firstStep),
      due: (done) => done % every === 0 || done === lastStep,
      score: Effect.fnUntraced(function* (done) {
        const { confusion, used, images } = yield* scored(done);
        const { aAcc, mIoU, mAcc, perClass } = segmentationScores(confusion);
        yield* Effect.logInfo(
          `Validation after ${done} steps, ${used} pictures: mIoU ${percent(mIoU)}, ` +
            `mAcc ${percent(mAcc)}, aAcc ${percent(aAcc)}`,
        );
        const numbers = [
          ["val_miou", mIoU],
          ["val_macc", mAcc],
          ["val_aacc", aAcc],
          ...perClass.map(({ iou }, c) => [`iou/${classes[c].name}`, iou ?? NaN] as const),
        ] as const;
        const known = numbers.filter(([, share]) => !Number.isNaN(share));
        const metrics = Object.fromEntries(known.map(([name, share]) => [name, 100 * share]));
        return { score: metrics.val_miou ?? 0, metrics, images } satisfies Validated as Validated;
      }),
    } satisfies Validation<ValidationError> as Validation<ValidationError>;
  },
);

/** The counts of all ranks together, and the sentences about images that cannot be read. */
const fromAllRanks = Effect.fnUntraced(function* (own: Confusion, bad: readonly string[]) {
  const { world } = yield* Collective;
  if (world === 1) return { confusion: own, bad };
  const texts = yield* gatherTexts(JSON.stringify({ counts: [...own.counts], bad }));
  const confusion = noConfusion(own.classes);
  const reasons: string[] = [];
  for (const text of texts) {
    const { counts, bad } = JSON.parse(text) as { readonly counts: number[]; readonly bad: string[] };
    counts.forEach((count, i) => confusion.counts[i] += count);
    reasons.push(...bad);
  }
  return { confusion, bad: reasons };
});

/** The score of the best checkpoint in the run's folder that the run could have saved before it begins. */
const bestSoFar = Effect.fnUntraced(
  function* ({ outputDir }: SegmentationConfig, firstStep: number) {
    if (firstStep === 0) return null;
    const { meta } = yield* openCheckpoint(join(checkpointFolder(outputDir), BEST_CHECKPOINT), SEGMENTATION);
    return meta.step <= firstStep ? meta.miou : null;
  },
  Effect.scoped,
  Effect.orElseSucceed(() => null),
);

/** So many places, or all, spread evenly over a list. */
const spread = (length: number, count: number): number[] =>
  Array.from({ length: Math.min(length, count) }, (_, i) => Math.floor(i * length / Math.min(length, count)));
