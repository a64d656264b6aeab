/** Unsupervised semantic segmentation: how well the slots of a teacher match the classes and objects in images. */
import { Effect, Stream } from "effect";
import type { LabelError } from "../../data/datasets/coco_annotations.ts";
import type { LabelledFile } from "../../data/datasets/coco_labels.ts";
import type { Picture } from "../../data/images/decode_image.ts";
import { release } from "../../data/images/release.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { input } from "../../ops/graph/tensor.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import type { RunError } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { unpack } from "../inference/packed_pictures.ts";
import { slotProgram, teacherScores, uploadTeacher } from "../inference/slot_program.ts";
import type { ModelOptions } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { initialState } from "../run/initial_state.ts";
import type { StateValues } from "../run/state_layout.ts";
import { type BadImages, leftOut } from "../run/bad_images.ts";
import { foregroundRandIndex } from "./adjusted_rand.ts";
import { fitColorClusters } from "./color_clusters.ts";
import { evenly, pictureBatches, type PictureError } from "./described.ts";
import { extremes } from "./extremes.ts";
import { expectLabelled, readFramedLabels } from "./framed_labels.ts";
import { type GroupingScore, noOverlap, scoreOverlap } from "./grouping.ts";

/** What to evaluate, and on what. */
export interface GroupingOptions {
  /** The architecture of the teacher. */
  readonly model: ModelOptions;
  /** Values, the teacher's among them. */
  readonly values: StateValues;
  /** The images and their labels. */
  readonly labelled: readonly LabelledFile[];
  /** The number of classes. */
  readonly classes: number;
  /**
   * The side of the central square of each image that is evaluated, after resizing the shorter side to it, in pixels.
   */
  readonly imageSize: number;
  /** Images at a time. */
  readonly batch: number;
  /** The seed of the untrained network's values and of the first cluster centres. */
  readonly seed: number;
  /** The share of the images that may be unreadable; they are left out. */
  readonly maxBadImages: number;
}

/** The options, and what has been met of the images that cannot be decoded. */
interface Grouping extends GroupingOptions {
  readonly frame: Frame;
  readonly bad: BadImages<string>;
}

/** The score of one way to group pixels. */
export interface GroupingResult extends GroupingScore {
  /** Its name in tables. */
  readonly method: string;
  /** The number of slots, or of clusters. */
  readonly slots: number;
  /** Mean FG-ARI over the images with several objects (one alone is easily in one slot); null where there are none. */
  readonly foregroundAri: number | null;
}

/** The score of the teacher's slots on one image. */
export interface GroupedPicture {
  /** The file. */
  readonly file: string;
  /** Share of its labelled pixels in the slot that is matched to their class; NaN where no pixel is labelled. */
  readonly accuracy: number;
  /** FG-ARI; null with less than two objects. */
  readonly foregroundAri: number | null;
}

/** An image to be shown. */
export interface ShownGrouping extends GroupedPicture {
  /** The image, S × S. */
  readonly picture: Picture;
  /** The slot of each pixel, [S, S]. */
  readonly slots: Float32Array;
  /** The label of each pixel, [S, S]. */
  readonly labels: Uint16Array;
}

/** The evaluation of slots. */
export interface GroupingEvaluation {
  /** The scores of the teacher, of an untrained network, and of clusters by colour and position. */
  readonly results: readonly GroupingResult[];
  /** The number of images that are scored. */
  readonly pictures: number;
  /** Why each of the others cannot be decoded. */
  readonly leftOut: readonly string[];
  /** The number of images with several objects. */
  readonly picturesWithObjects: number;
  /** The images with the highest accuracies. */
  readonly best: readonly ShownGrouping[];
  /** The images with the lowest accuracies. */
  readonly worst: readonly ShownGrouping[];
}

/** A way to group pixels. */
interface Method {
  readonly method: string;
  readonly slots: number;
  /** The slots of all pixels of images [count, S, S]. */
  readonly map: (pixels: Uint32Array, count: number) => Effect.Effect<ArrayLike<number>, RunError>;
}

/** Images in which clusters are found. */
const CLUSTERED = 64;

/** How evaluations of labelled images can fail. */
export type LabelledError = LabelError | PictureError | PlanError | RunError;

/**
 * Scores slots on labelled images, beside those of an untrained network and clusters of colour and position: as many
 * clusters as there are slots (the same chances by majority) and as there are classes (the best chances when matched).
 * Memory holds a batch of images, and the number of pixels that slots and classes share in each.
 */
export const evaluateGrouping: (
  options: GroupingOptions,
) => Effect.Effect<GroupingEvaluation, LabelledError, Gpu> = Effect.fn("evaluateGrouping")(
  function* (options) {
    const { model, values, labelled, imageSize, seed } = options;
    const bad = leftOut(labelled.map(({ file }) => file), options.maxBadImages);
    const run: Grouping = { ...options, frame: { resize: imageSize, crop: imageSize }, bad };
    const teacher = yield* slotMethod("slots", model, values, options);
    const methods: Method[] = [
      teacher,
      yield* slotMethod("slots of an untrained network", model, untrained(model, seed), options),
      ...yield* colorMethods(evenly(labelled, CLUSTERED), run),
    ];
    const { scored, overlaps, indices, shared } = yield* counted(methods, run);
    yield* expectLabelled(labelled, overlaps[0]);
    const results = methods.map(({ method, slots }, m): GroupingResult => ({
      method,
      slots,
      ...scoreOverlap(overlaps[m]),
      foregroundAri: indices[m].size === 0 ? null : mean([...indices[m].values()]),
    }));

    const pictures = shared.map((common, i): GroupedPicture => ({
      file: scored[i].file,
      accuracy: accuracyOf(common, results[0].slotOf, model.numPrototypes),
      foregroundAri: indices[0].get(i) ?? null,
    }));
    const { best, worst } = extremes(pictures, ({ accuracy }) => accuracy);
    return {
      results,
      pictures: scored.length,
      leftOut: bad.reasons(),
      picturesWithObjects: indices[0].size,
      best: yield* shown(best, pictures, teacher, { ...run, labelled: scored }),
      worst: yield* shown(worst, pictures, teacher, { ...run, labelled: scored }),
    } satisfies GroupingEvaluation as GroupingEvaluation;
  },
  Effect.scoped,
);

/**
 * The images that can be decoded, and for each method, the pixels that classes and slots share over all of them, and the
 * FG-ARI of those with several objects by index; and for each image the pixels that classes share with the slots of the
 * first method.
 */
const counted = Effect.fnUntraced(function* (
  methods: readonly Method[],
  { labelled, classes, batch, frame, bad }: Grouping,
) {
  const S = frame.crop;
  const overlaps = methods.map(({ slots }) => noOverlap({ slots, classes }));
  const indices = methods.map(() => new Map<number, number>());
  const scored: LabelledFile[] = [];
  const shared: Shared[] = [];
  yield* pictureBatches(labelled.map(({ file }) => file), { stage: "scoring", batch, frame, bad }).pipe(
    Stream.runForEach(Effect.fnUntraced(function* ({ places, pixels, sizes }) {
      const some = places.map((place) => labelled[place]);
      const truth = yield* readFramedLabels(some, sizes, frame);
      for (const [m, { map, slots: K }] of methods.entries()) {
        const slots = yield* map(pixels, places.length);
        truth.forEach(({ labels, objects }, i) => {
          const own = Array.prototype.slice.call(slots, i * S * S, (i + 1) * S * S);
          const common = sharedPixels(own, labels, K);
          common.forEach((pixels, key) => overlaps[m][Math.floor(key / K)][key % K] += pixels);
          if (m === 0) shared.push(common);
          if (objects !== null && hasSeveral(objects)) {
            indices[m].set(scored.length + i, foregroundRandIndex(objects, own)!);
          }
        });
      }
      scored.push(...some);
      release(pixels);
    })),
  );
  return { scored, overlaps, indices, shared };
});

/** The share of an image's labelled pixels whose slot is that of their class, NaN without any. */
const accuracyOf = (common: Shared, slotOf: readonly number[], K: number): number => {
  let right = 0, known = 0;
  common.forEach((pixels, key) => {
    known += pixels;
    if (slotOf[Math.floor(key / K)] === key % K) right += pixels;
  });
  return known === 0 ? NaN : right / known;
};

/** The images with these indices, with their slots and labels. */
const shown = Effect.fnUntraced(function* (
  indices: readonly number[],
  pictures: readonly GroupedPicture[],
  { map }: Method,
  { labelled, batch, frame, bad }: Grouping,
) {
  const S = frame.crop;
  const found: ShownGrouping[] = [];
  const files = indices.map((index) => labelled[index].file);
  yield* pictureBatches(files, { stage: "drawing", batch, frame, bad }).pipe(
    Stream.runForEach(Effect.fnUntraced(function* ({ places, pixels, sizes }) {
      const slots = yield* map(pixels, places.length);
      const some = places.map((place) => indices[place]);
      const truth = yield* readFramedLabels(some.map((index) => labelled[index]), sizes, frame);
      for (const [i, index] of some.entries()) {
        found.push({
          ...pictures[index],
          picture: unpack(pixels.subarray(i * S * S, (i + 1) * S * S), S),
          slots: Float32Array.from(Array.prototype.slice.call(slots, i * S * S, (i + 1) * S * S)),
          labels: truth[i].labels,
        });
      }
    })),
  );
  return found;
});

const slotMethod = Effect.fnUntraced(function* (
  method: string,
  model: ModelOptions,
  values: StateValues,
  { imageSize: S, batch }: GroupingOptions,
) {
  const size = { height: S, width: S };
  const program = yield* slotProgram(model, yield* uploadTeacher(model, values), {
    pictures: [batch, S, S],
    slots: size,
  });
  const map: Method["map"] = (pixels) =>
    Effect.map(Effect.flatten(program.run(pixels)), ({ values }) => values);
  return { method, slots: model.numPrototypes, map } satisfies Method as Method;
});

const untrained = (model: ModelOptions, seed: number): StateValues => {
  const state = new StateBuilder();
  teacherScores(state, input("pictures", [1, 64, 64], "u32"), model);
  return initialState(state, seed);
};

const colorMethods = Effect.fnUntraced(
  function* (sampled: readonly LabelledFile[], { model, seed, frame, bad }: Grouping) {
    const S = frame.crop;
    const sample: Picture[] = [];
    const classes = new Set<number>();
    yield* pictureBatches(sampled.map(({ file }) => file), {
      ...{ stage: "clustering colours", batch: 16, frame, bad },
    })
      .pipe(
        Stream.runForEach(Effect.fnUntraced(function* ({ places, pixels, sizes }) {
          for (const [i, place] of places.entries()) {
            sample.push(unpack(pixels.subarray(i * S * S, (i + 1) * S * S), S));
            const size = { width: sizes[2 * i], height: sizes[2 * i + 1] };
            const { labels } = yield* sampled[place].read(size);
            labels.forEach((label) => label > 0 && classes.add(label));
          }
        })),
      );
    return [...new Set([model.numPrototypes, classes.size])].filter((clusters) => clusters > 0).map(
      (clusters): Method => {
        const clusterOf = fitColorClusters(sample, { clusters, seed });
        return {
          method: "k-means of colour and place",
          slots: clusters,
          map: (pixels, count) =>
            Effect.sync(() => {
              const all = new Uint32Array(count * S * S);
              for (let i = 0; i < count; i++) {
                all.set(clusterOf(unpack(pixels.subarray(i * S * S, (i + 1) * S * S), S)), i * S * S);
              }
              return all;
            }),
        };
      },
    );
  },
);

/** The number of pixels of one image that a class and a slot share, by (label − 1) · K + slot. */
type Shared = ReadonlyMap<number, number>;

const sharedPixels = (slots: ArrayLike<number>, labels: ArrayLike<number>, K: number): Shared => {
  const common = new Map<number, number>();
  let last = -1, run = 0; // neighbours mostly have the same class and slot
  const add = () => run > 0 && common.set(last, (common.get(last) ?? 0) + run);
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] === 0) continue;
    const key = (labels[i] - 1) * K + slots[i];
    if (key !== last) {
      add();
      [last, run] = [key, 0];
    }
    run++;
  }
  add();
  return common;
};

const hasSeveral = (objects: Uint16Array): boolean => {
  const first = objects.find((object) => object !== 0);
  return first !== undefined && objects.some((object) => object !== 0 && object !== first);
};

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
