/** Semantic segmentation by one linear layer on frozen feature maps. */
import { Effect, Stream } from "effect";
import type { LabelledFile } from "../../data/datasets/coco_labels.ts";
import type { Picture } from "../../data/images/decode_image.ts";
import { permutation } from "../../data/random/random.ts";
import { argmaxMap } from "../../ops/argmax_map.ts";
import { input } from "../../ops/graph/tensor.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import type { Descriptor, NamedDescriptor, RunError } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import type { FramedOptions } from "../inference/framed_batches.ts";
import { unpack } from "../inference/packed_pictures.ts";
import { leftOut } from "../run/bad_images.ts";
import type { UsedImages } from "./classification.ts";
import { type BatchOptions, evenly, pictureBatches } from "./described.ts";
import type { LabelledError } from "./evaluate_grouping.ts";
import { extremes } from "./extremes.ts";
import { expectLabelled, readFramedLabels } from "./framed_labels.ts";
import { addOverlap, noOverlap, type Overlap } from "./grouping.ts";
import {
  type LinearClassifier,
  linearClassifier,
  ScaleOf,
  type TrainingOptions,
} from "./linear_classifier.ts";
import { EvaluationProgress } from "./progress.ts";

/** What to evaluate, and on what. */
export interface SegmentationOptions {
  /** Labelled images to train on. */
  readonly train: readonly LabelledFile[];
  /** Labelled images to score. */
  readonly val: readonly LabelledFile[];
  /** The number of classes. */
  readonly classes: number;
  /** Descriptors of cells, with the same grid; the first is the one in question. */
  readonly descriptors: readonly NamedDescriptor[];
  /** How to train. */
  readonly training: TrainingOptions & { readonly epochs: number; readonly seed: number };
  /** The side of the central square of each image, after resizing the shorter side to it, in pixels. */
  readonly imageSize: number;
  /** Images of a step. */
  readonly batch: number;
  /** The share of the images of each split that may be unreadable; they are left out. */
  readonly maxBadImages: number;
  /**
   * Bytes of features that may be kept from one epoch to the next; more than that are computed again in every epoch.
   */
  readonly memory?: number;
}

/** The score of a segmentation. */
export interface SegmentationScore {
  /** Mean intersection over union, over the classes that occur: 0 … 1. */
  readonly miou: number;
  /** The share of the labelled pixels with the right class: 0 … 1. */
  readonly accuracy: number;
  /** Intersection over union of each class, and its pixels; null for a class that does not occur. */
  readonly perClass: readonly ({ readonly pixels: number; readonly iou: number } | null)[];
}

/** An image to be shown. */
export interface ShownSegmentation {
  /** The file. */
  readonly file: string;
  /** The share of its labelled pixels with the right class. */
  readonly accuracy: number;
  /** The image, S × S. */
  readonly picture: Picture;
  /** The predicted class of each pixel, from 0, [S, S]. */
  readonly found: Float32Array;
  /** The label of each pixel, [S, S]: its class + 1, or 0 where it is unknown. */
  readonly labels: Uint16Array;
}

/** The options, and how to go through the images of each split. */
interface Segmentation extends SegmentationOptions {
  readonly frame: Frame;
  readonly ofTrain: FramedOptions;
  readonly ofVal: FramedOptions;
}

/** The evaluation of descriptors by segmentation. */
export interface SegmentationEvaluation {
  /** The images that it has used. */
  readonly used: UsedImages;
  /** The score of each descriptor, and the last loss of its layer. */
  readonly results: readonly (SegmentationScore & { readonly method: string; readonly loss: number })[];
  /** The images with the highest accuracies, by the first descriptor. */
  readonly best: readonly ShownSegmentation[];
  /** The images with the lowest accuracies, by the first descriptor. */
  readonly worst: readonly ShownSegmentation[];
}

/** The word of a random key that tells the orders of this probe's epochs from the other draws of a seed. */
const SEGMENTATION_PROBE = 8;
/** Images by which features are scaled. */
const SCALED = 256;
/** Bytes of features that are kept if the options do not say. */
const MEMORY = 2 ** 31;

/**
 * Trains a linear layer for each descriptor on the labelled cells of `train`, and scores it on `val`. The class of a
 * cell is the one that most of its labelled pixels have; predictions are the highest of the layer's scores, enlarged
 * bilinearly to the size of the image.
 */
export const segmentationProbe: (
  options: SegmentationOptions,
) => Effect.Effect<SegmentationEvaluation, LabelledError, Gpu> = Effect.fn("segmentationProbe")(
  function* (options) {
    const { train, val, descriptors, imageSize, batch, maxBadImages } = options;
    const frame: Frame = { resize: imageSize, crop: imageSize };
    const [badTrain, badVal] = [train, val].map((split) => leftOut(filesOf(split), maxBadImages));
    const run: Segmentation = {
      ...{ ...options, frame },
      ofTrain: { batch, frame, bad: badTrain },
      ofVal: { batch, frame, bad: badVal },
    };
    const classifiers = yield* classifiersFor(run);
    const { losses, learnt } = yield* trained(classifiers, run);
    const segment = yield* segmenter(classifiers, options);
    const { overlaps, images } = yield* scored(segment, run);
    yield* expectLabelled(val, overlaps[0]);
    const { best, worst } = extremes(images, ({ accuracy }) => accuracy);
    const show = (indices: readonly number[]) =>
      segmented(segment, indices.map((index) => images[index]), run);
    return {
      used: {
        ...{ train: learnt, val: images.length },
        leftOut: [...badTrain.reasons(), ...badVal.reasons()],
      },
      results: descriptors.map(({ method }, d) => ({
        method,
        ...segmentationScore(overlaps[d]),
        loss: losses[d] ?? NaN,
      })),
      best: yield* show(best),
      worst: yield* show(worst),
    } satisfies SegmentationEvaluation as SegmentationEvaluation;
  },
  Effect.scoped,
);

const filesOf = (split: readonly LabelledFile[]) => split.map(({ file }) => file);

/** An untrained classifier for each descriptor, which scales its features. */
const classifiersFor = Effect.fnUntraced(function* (
  { train, classes, descriptors, training, batch, ofTrain }: Segmentation,
) {
  const all = descriptors.map(({ descriptor }) => descriptor);
  const scales = all.map(({ channels }) => new ScaleOf(channels));
  const sample = filesOf(evenly(train, SCALED));
  yield* pictureBatches(sample, { ...ofTrain, stage: "looking at features" }).pipe(
    Stream.runForEach(({ pixels, places }) =>
      Effect.forEach(
        all,
        ({ describe }, d) =>
          Effect.map(describe(pixels, places.length), (features) => scales[d].add(features)),
        { discard: true },
      )
    ),
  );
  return yield* Effect.forEach(all, ({ grid, channels }, d) =>
    linearClassifier({
      ...training,
      channels,
      classes,
      scale: scales[d].result(),
      rowsPerStep: batch * grid * grid,
      steps: training.epochs * Math.ceil(train.length / batch),
    }));
});

/** Trains the classifiers: the last loss of each, and the number of images that they have learnt from. */
const trained = Effect.fnUntraced(function* (
  classifiers: readonly LinearClassifier[],
  { train, descriptors, training, batch, ofTrain, memory = MEMORY }: Segmentation,
) {
  const progress = yield* EvaluationProgress;
  const all = descriptors.map(({ descriptor }) => descriptor);
  const cells = all[0].grid ** 2;
  const bytes = 4 * train.length * all.reduce((sum, { channels }) => sum + cells * channels, 0);
  const kept = new Map<string, Described>(); // by file
  let done = 0;
  const losses: (number | null)[] = all.map(() => null);
  for (let epoch = 0; epoch < training.epochs; epoch++) {
    const order = [...permutation(train.length, training.seed, SEGMENTATION_PROBE, epoch)]
      .map((place) => train[place]).filter(({ file }) => !ofTrain.bad.has(file));
    const stage = `training, epoch ${epoch + 1} of ${training.epochs}`;
    const described = kept.size === order.length
      ? Stream.fromIterable(order.map(({ file }) => kept.get(file)!))
      : describedPictures(order, all, { ...ofTrain, stage }).pipe(
        Stream.tap((image) => Effect.sync(() => bytes <= memory && kept.set(image.file, image))),
      );
    done = 0;
    yield* described.pipe(
      Stream.grouped(batch),
      Stream.runForEach(Effect.fnUntraced(function* (images) {
        for (const [d, { step }] of classifiers.entries()) {
          losses[d] = yield* step(labelledRows(images, d, all[d].channels, batch * cells));
        }
        done += images.length;
        yield* progress(stage, done, order.length);
      })),
    );
  }
  return { losses, learnt: done };
});

/** Predicts the class of each pixel, [batch, S, S], from 0, by a descriptor. */
type Segmenter = (
  descriptor: number,
  pixels: Uint32Array,
  count: number,
) => Effect.Effect<Float32Array, RunError>;

const segmenter = Effect.fnUntraced(function* (
  classifiers: readonly LinearClassifier[],
  { descriptors, imageSize: S, batch }: SegmentationOptions,
) {
  const all = descriptors.map(({ descriptor }) => descriptor);
  const programs = yield* Effect.forEach(classifiers, ({ logits, state }, d) => {
    const { grid, channels } = all[d];
    const scores = logits(input("cells", [batch, grid, grid, channels]));
    const found = argmaxMap(scores, { height: S, width: S });
    return compile({ label: "the segmentation", outputs: { found } }, state);
  });
  const segment: Segmenter = Effect.fnUntraced(function* (d, pixels, count) {
    const { grid, channels, describe } = all[d];
    const cells = new Float32Array(batch * grid * grid * channels);
    cells.set(yield* describe(pixels, count));
    return (yield* yield* programs[d].run({ cells })).found;
  });
  return segment;
});

/** An image of `val`, and the share of its labelled pixels that the first descriptor has right. */
interface Scored extends LabelledFile {
  readonly accuracy: number;
}

/** Predicts all images of `val`: the overlap of classes by each descriptor, and the images that can be decoded. */
const scored = Effect.fnUntraced(function* (
  segment: Segmenter,
  { val, classes, descriptors, imageSize: S, frame, ofVal }: Segmentation,
) {
  const overlaps = descriptors.map(() => noOverlap({ slots: classes, classes }));
  const images: Scored[] = [];
  yield* pictureBatches(filesOf(val), { ...ofVal, stage: "scoring" }).pipe(
    Stream.runForEach(Effect.fnUntraced(function* ({ places, pixels, sizes }) {
      const some = places.map((place) => val[place]);
      const truth = yield* readFramedLabels(some, sizes, frame);
      const labels = truth.map(({ labels }) => labels);
      for (const d of descriptors.keys()) {
        const found = yield* segment(d, pixels, places.length);
        labels.forEach((labels, i) => {
          const slots = found.subarray(i * S * S, (i + 1) * S * S);
          addOverlap(overlaps[d], { slots, labels });
          if (d === 0) images.push({ ...some[i], accuracy: accuracyOf(slots, labels) });
        });
      }
    })),
  );
  return { overlaps, images };
});

/** Images with their predictions by the first descriptor and their labels. */
const segmented = Effect.fnUntraced(function* (
  segment: Segmenter,
  labelled: readonly Scored[],
  { imageSize: S, frame, ofVal }: Segmentation,
) {
  const images: ShownSegmentation[] = [];
  yield* pictureBatches(filesOf(labelled), { ...ofVal, stage: "drawing" }).pipe(
    Stream.runForEach(Effect.fnUntraced(function* ({ places, pixels, sizes }) {
      const found = yield* segment(0, pixels, places.length);
      const some = places.map((place) => labelled[place]);
      const truth = yield* readFramedLabels(some, sizes, frame);
      for (const [i, { file, accuracy }] of some.entries()) {
        images.push({
          ...{ file, accuracy },
          picture: unpack(pixels.subarray(i * S * S, (i + 1) * S * S), S),
          found: found.slice(i * S * S, (i + 1) * S * S),
          labels: truth[i].labels,
        });
      }
    })),
  );
  return images;
});

/** The features and labels of an image's cells. */
interface Described {
  /** The image. */
  readonly file: string;
  /** For each descriptor, [grid, grid, channels]. */
  readonly features: readonly Float32Array[];
  /** [grid, grid]. */
  readonly labels: Uint16Array;
}

const describedPictures = (
  labelled: readonly LabelledFile[],
  all: readonly Descriptor[],
  options: BatchOptions,
) =>
  pictureBatches(filesOf(labelled), options).pipe(
    Stream.flatMap(({ places, pixels, sizes }) =>
      Stream.fromIterableEffect(Effect.gen(function* () {
        const features = yield* Effect.forEach(all, ({ describe }) => describe(pixels, places.length));
        const some = places.map((place) => labelled[place]);
        const truth = yield* readFramedLabels(some, sizes, options.frame);
        return truth.map((map, i): Described => ({
          file: some[i].file,
          features: features.map((rows) => {
            const each = rows.length / places.length;
            return rows.slice(i * each, (i + 1) * each);
          }),
          labels: cellLabels(map.labels, options.frame.crop, all[0].grid),
        }));
      }))
    ),
  );

/**
 * The label that most labelled pixels of each cell have, [grid, grid], from [S, S]; 0 for a cell without labelled
 * pixels.
 */
export const cellLabels = (labels: Uint16Array, S: number, grid: number): Uint16Array => {
  const edge = (cell: number) => Math.round(cell * S / grid);
  return Uint16Array.from({ length: grid * grid }, (_, cell) => {
    const [column, row] = [cell % grid, Math.floor(cell / grid)];
    const counts = new Map<number, number>();
    let most = 0;
    for (let y = edge(row); y < edge(row + 1); y++) {
      for (let x = edge(column); x < edge(column + 1); x++) {
        const label = labels[y * S + x];
        if (label === 0) continue;
        counts.set(label, (counts.get(label) ?? 0) + 1);
        if (counts.get(label)! > (counts.get(most) ?? 0)) most = label;
      }
    }
    return most;
  });
};

/** The labelled cells of images as rows [R, C], followed by empty rows. */
const labelledRows = (images: readonly Described[], d: number, C: number, R: number) => {
  const rows = new Float32Array(R * C), classes = new Uint32Array(R);
  let count = 0;
  for (const { features, labels } of images) {
    labels.forEach((label, cell) => {
      if (label === 0) return;
      rows.set(features[d].subarray(cell * C, (cell + 1) * C), count * C);
      classes[count++] = label - 1;
    });
  }
  return { rows, labels: classes, count };
};

const accuracyOf = (found: ArrayLike<number>, labels: ArrayLike<number>): number => {
  let right = 0, known = 0;
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] === 0) continue;
    known++;
    if (found[i] === labels[i] - 1) right++;
  }
  return known === 0 ? NaN : right / known;
};

/** The score of predictions from the pixels that each class shares with each predicted class, [C][C]. */
export const segmentationScore = (overlap: Overlap): SegmentationScore => {
  const predicted = overlap.map((_, c) => overlap.reduce((sum, row) => sum + row[c], 0));
  let right = 0, known = 0;
  const perClass = overlap.map((row, c) => {
    const pixels = row.reduce((sum, count) => sum + count, 0);
    right += row[c];
    known += pixels;
    return pixels === 0 ? null : { pixels, iou: row[c] / (pixels + predicted[c] - row[c]) };
  });
  const shown = perClass.filter((score) => score !== null);
  return {
    miou: shown.reduce((sum, { iou }) => sum + iou, 0) / shown.length,
    accuracy: right / known,
    perClass,
  };
};
