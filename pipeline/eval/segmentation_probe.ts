/** Semantic segmentation by one linear layer on frozen feature maps. */
import { Effect, Stream } from "effect";
import type { LabelledFile } from "../../data/datasets/coco_labels.ts";
import type { Picture } from "../../data/images/decode_image.ts";
import { permutation } from "../../data/random/random.ts";
import { argmaxMap } from "../../ops/argmax_map.ts";
import { input } from "../../ops/graph/tensor.ts";
import { compile } from "../../ops/runtime/program.ts";
import type { NamedDescriptor } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { unpack } from "../inference/packed_pictures.ts";
import { evenly, pictureBatches } from "./described.ts";
import { extremes } from "./extremes.ts";
import { framedLabels } from "./framed_labels.ts";
import { addOverlap, noOverlap, type Overlap } from "./grouping.ts";
import { linearClassifier, ScaleOf, type TrainingOptions } from "./linear_classifier.ts";
import { EvaluationProgress } from "./progress.ts";

export interface SegmentationOptions {
  readonly train: readonly LabelledFile[];
  readonly val: readonly LabelledFile[];
  readonly classes: number;
  readonly descriptors: readonly NamedDescriptor[]; // of cells; the first is the one in question
  readonly training: TrainingOptions & { readonly epochs: number; readonly seed: number };
  readonly imageSize: number;
  readonly batch: number; // pictures of a step
  /** Bytes of features that may be kept for the next epoch; where they need more, they are computed again. */
  readonly memory?: number;
}

export interface SegmentationScore {
  readonly miou: number; // over the classes that occur: 0 … 1
  readonly accuracy: number; // share of the labelled pixels
  readonly perClass: readonly ({ readonly pixels: number; readonly iou: number } | null)[]; // null: does not occur
}

export interface ShownSegmentation {
  readonly file: string;
  readonly accuracy: number;
  readonly picture: Picture;
  readonly found: Float32Array; // [S, S], place in the classes
  readonly labels: Uint16Array; // [S, S], place + 1, 0 unknown
}

export interface SegmentationEvaluation {
  readonly results: readonly (SegmentationScore & { readonly method: string; readonly loss: number })[];
  readonly best: readonly ShownSegmentation[];
  readonly worst: readonly ShownSegmentation[];
}

/** What tells the orders of this probe's epochs from the other draws of a seed. */
const SEGMENTATION_PROBE = 8;
/** Pictures that tell the scale of features. */
const SCALED = 256;
const MEMORY = 2 ** 31;

/**
 * Trains a layer for each descriptor on the labelled cells of `train`, a cell being of the class that most of its labelled
 * pixels have, and scores it on `val`: scores enlarged bilinearly to the picture, the largest wins.
 */
export const segmentationProbe = Effect.fn("segmentationProbe")(function* (options: SegmentationOptions) {
  const { train, val, classes, descriptors, training, imageSize: S, batch } = options;
  const progress = yield* EvaluationProgress;
  const frame: Frame = { resize: S, crop: S };
  const all = descriptors.map(({ descriptor }) => descriptor);
  const { grid } = all[0];
  const cells = grid * grid;
  const files = (split: readonly LabelledFile[]) => split.map(({ file }) => file);

  const scales = all.map(({ channels }) => new ScaleOf(channels));
  yield* pictureBatches(files(evenly(train, SCALED)), { stage: "looking at features", batch, frame }).pipe(
    Stream.runForEach(({ pixels, count }) =>
      Effect.forEach(
        all,
        ({ describe }, d) => Effect.map(describe(pixels, count), (features) => scales[d].add(features)),
        { discard: true },
      )
    ),
  );
  const stepsPerEpoch = Math.ceil(train.length / batch);
  const classifiers = yield* Effect.forEach(all, ({ channels }, d) =>
    linearClassifier({
      ...training,
      channels,
      classes,
      scale: scales[d].result(),
      rowsPerStep: batch * cells,
      steps: training.epochs * stepsPerEpoch,
    }));

  const each = all.map(({ channels }) => cells * channels);
  const keeps = train.length * each.reduce((sum, size) => sum + size, 0) * 4 <= (options.memory ?? MEMORY);
  const kept = new Map<number, Described>();
  const losses: (number | null)[] = all.map(() => null);
  for (let epoch = 0; epoch < training.epochs; epoch++) {
    const order = [...permutation(train.length, training.seed, SEGMENTATION_PROBE, epoch)];
    const stage = `training, epoch ${epoch + 1} of ${training.epochs}`;
    const described = kept.size === train.length
      ? Stream.fromIterable(order.map((place) => kept.get(place)!))
      : describedPictures(order.map((place) => train[place]), all, { stage, batch, frame }).pipe(
        Stream.map((one, i) => {
          if (keeps) kept.set(order[i], one);
          return one;
        }),
      );
    let done = 0;
    yield* described.pipe(
      Stream.grouped(batch),
      Stream.runForEach(Effect.fnUntraced(function* (some) {
        for (const [d, { step }] of classifiers.entries()) {
          losses[d] = yield* step(labelledRows(some, d, all[d].channels, batch * cells));
        }
        done += some.length;
        yield* progress(stage, done, train.length);
      })),
    );
  }

  const programs = yield* Effect.forEach(classifiers, ({ logits, state }, d) =>
    compile({
      label: "the segmentation",
      outputs: {
        found: argmaxMap(logits(input("cells", [batch, grid, grid, all[d].channels])), {
          height: S,
          width: S,
        }),
      },
    }, state));
  const segment = Effect.fnUntraced(function* (d: number, pixels: Uint32Array, count: number) {
    const features = yield* all[d].describe(pixels, count);
    const full = new Float32Array(batch * each[d]);
    full.set(features);
    return (yield* yield* programs[d].run({ cells: full })).found;
  });
  const overlaps = all.map(() => noOverlap({ slots: classes, classes }));
  const accuracies: number[] = [];
  yield* pictureBatches(files(val), { stage: "scoring", batch, frame }).pipe(
    Stream.runForEach(Effect.fnUntraced(function* ({ first, pixels, count }) {
      const truth = yield* Effect.forEach(val.slice(first, first + count), ({ read }) => read);
      const labels = truth.map((map) => framedLabels(map, frame).labels);
      for (const d of all.keys()) {
        const found = yield* segment(d, pixels, count);
        labels.forEach((labels, i) => {
          const slots = found.subarray(i * S * S, (i + 1) * S * S);
          addOverlap(overlaps[d], { slots, labels });
          if (d === 0) accuracies.push(accuracyOf(slots, labels));
        });
      }
    })),
  );

  const { best, worst } = extremes(accuracies, (accuracy) => accuracy);
  const show = Effect.fnUntraced(function* (places: readonly number[]) {
    const shown: ShownSegmentation[] = [];
    yield* pictureBatches(places.map((place) => val[place].file), { stage: "drawing", batch, frame }).pipe(
      Stream.runForEach(Effect.fnUntraced(function* ({ first, pixels, count }) {
        const found = yield* segment(0, pixels, count);
        for (let i = 0; i < count; i++) {
          const place = places[first + i];
          shown.push({
            file: val[place].file,
            accuracy: accuracies[place],
            picture: unpack(pixels.subarray(i * S * S, (i + 1) * S * S), S),
            found: found.slice(i * S * S, (i + 1) * S * S),
            labels: framedLabels(yield* val[place].read, frame).labels,
          });
        }
      })),
    );
    return shown;
  });
  return {
    results: descriptors.map(({ method }, d) => ({
      method,
      ...segmentationScore(overlaps[d]),
      loss: losses[d] ?? NaN,
    })),
    best: yield* show(best),
    worst: yield* show(worst),
  } satisfies SegmentationEvaluation as SegmentationEvaluation;
}, Effect.scoped);

interface Described {
  readonly features: readonly Float32Array[]; // for each descriptor, [grid, grid, channels]
  readonly labels: Uint16Array; // [grid, grid]
}

const describedPictures = (
  labelled: readonly LabelledFile[],
  all: readonly NamedDescriptor["descriptor"][],
  options: Parameters<typeof pictureBatches>[1],
) =>
  pictureBatches(labelled.map(({ file }) => file), options).pipe(
    Stream.flatMap(({ first, pixels, count }) =>
      Stream.fromIterableEffect(Effect.gen(function* () {
        const features = yield* Effect.forEach(all, ({ describe }) => describe(pixels, count));
        const maps = yield* Effect.forEach(labelled.slice(first, first + count), ({ read }) => read);
        return maps.map((map, i): Described => ({
          features: features.map((rows) => {
            const each = rows.length / count;
            return rows.slice(i * each, (i + 1) * each);
          }),
          labels: cellLabels(framedLabels(map, options.frame).labels, options.frame.crop, all[0].grid),
        }));
      }))
    ),
  );

/** The label that most of a cell's labelled pixels have, [S, S] to [grid, grid]; 0 in a cell without any. */
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

/** The labelled cells of pictures, in front of as many empty rows as fill a step. */
const labelledRows = (pictures: readonly Described[], d: number, C: number, R: number) => {
  const rows = new Float32Array(R * C), classes = new Uint32Array(R);
  let count = 0;
  for (const { features, labels } of pictures) {
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

/** Scores of predictions, from the pixels that each class shares with each predicted class: [C][C]. */
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
