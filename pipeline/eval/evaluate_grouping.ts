/** Unsupervised semantic segmentation: what the slots of a teacher have to do with the classes and objects in pictures. */
import { Effect, Stream } from "effect";
import type { LabelledFile } from "../../data/datasets/coco_labels.ts";
import type { Picture } from "../../data/images/decode_image.ts";
import { release } from "../../data/images/release.ts";
import { input } from "../../ops/graph/tensor.ts";
import type { RunError } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { unpack } from "../inference/packed_pictures.ts";
import { slotProgram, teacherScores, uploadTeacher } from "../inference/slot_program.ts";
import type { ModelOptions } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { initialState } from "../run/initial_state.ts";
import type { StateValues } from "../run/state_layout.ts";
import { foregroundRandIndex } from "./adjusted_rand.ts";
import { fitColorClusters } from "./color_clusters.ts";
import { evenly, pictureBatches } from "./described.ts";
import { extremes } from "./extremes.ts";
import { framedLabels } from "./framed_labels.ts";
import { type GroupingScore, noOverlap, scoreOverlap } from "./grouping.ts";

export interface GroupingOptions {
  readonly model: ModelOptions;
  readonly values: StateValues; // of the teacher
  readonly labelled: readonly LabelledFile[];
  readonly classes: number;
  readonly imageSize: number; // the shorter side is resized to this, the middle square is looked at
  readonly batch: number;
  readonly seed: number; // of initial weights and cluster centres
}

/** How one way to group pixels did. */
export interface GroupingResult extends GroupingScore {
  readonly method: string;
  readonly slots: number;
  /** Mean over the pictures with several objects (one alone is easily in one slot); null where there are none. */
  readonly foregroundAri: number | null;
}

/** How one picture went with the teacher's slots. */
export interface GroupedPicture {
  readonly file: string;
  readonly accuracy: number; // share of its labelled pixels in the slot that is matched to their class
  readonly foregroundAri: number | null; // null with less than two objects
}

export interface ShownGrouping extends GroupedPicture {
  readonly picture: Picture;
  readonly slots: Float32Array; // [S, S]
  readonly labels: Uint16Array; // [S, S]
}

export interface GroupingEvaluation {
  readonly results: readonly GroupingResult[]; // of the teacher, an untrained one, clusters of colour and place
  readonly pictures: number;
  readonly picturesWithObjects: number; // with two or more
  readonly best: readonly ShownGrouping[];
  readonly worst: readonly ShownGrouping[];
}

interface Method {
  readonly method: string;
  readonly slots: number;
  /** Pictures [count, S, S] to the slots of their pixels. */
  readonly map: (pixels: Uint32Array, count: number) => Effect.Effect<ArrayLike<number>, RunError>;
}

/** Pictures that clusters of colours are looked for in. */
const CLUSTERED = 64;

/**
 * Scores slots on labelled pictures, beside those of an untrained network and k-means on colours and places, with as many
 * clusters as there are slots (the same chances by majority) and as classes (the best chances when matched). Pictures pass by one after the other; what stays of each is how many pixels slots and classes share.
 */
export const evaluateGrouping = Effect.fn("evaluateGrouping")(function* (options: GroupingOptions) {
  const { model, values, labelled, classes, imageSize: S, batch, seed } = options;
  const frame: Frame = { resize: S, crop: S };
  const files = labelled.map(({ file }) => file);
  const teacher = yield* slotMethod("slots", model, values, options);
  const methods: Method[] = [
    teacher,
    yield* slotMethod("slots of an untrained network", model, untrained(model, seed), options),
    ...yield* colorMethods(evenly(labelled, CLUSTERED), options, frame),
  ];
  const overlaps = methods.map(({ slots }) => noOverlap({ slots, classes }));
  const indices = methods.map(() => new Map<number, number>()); // of pictures with several objects
  const shared: Shared[] = []; // by the teacher's slots

  yield* pictureBatches(files, { stage: "scoring", batch, frame }).pipe(
    Stream.runForEach(Effect.fnUntraced(function* ({ first, pixels, count }) {
      const labels = yield* Effect.forEach(labelled.slice(first, first + count), ({ read }) => read);
      const truth = labels.map((map) => framedLabels(map, frame));
      for (const [m, { map, slots: K }] of methods.entries()) {
        const slots = yield* map(pixels, count);
        truth.forEach(({ labels, objects }, i) => {
          const own = Array.prototype.slice.call(slots, i * S * S, (i + 1) * S * S);
          const common = sharedPixels(own, labels, K);
          common.forEach((pixels, key) => overlaps[m][Math.floor(key / K)][key % K] += pixels);
          if (m === 0) shared.push(common);
          if (objects !== null && hasSeveral(objects)) {
            indices[m].set(first + i, foregroundRandIndex(objects, own)!);
          }
        });
      }
      release(pixels);
    })),
  );

  const results = methods.map(({ method, slots }, m): GroupingResult => ({
    method,
    slots,
    ...scoreOverlap(overlaps[m]),
    foregroundAri: indices[m].size === 0 ? null : mean([...indices[m].values()]),
  }));
  const { slotOf } = results[0];
  const pictures = shared.map((common, i): GroupedPicture => {
    let right = 0, known = 0;
    common.forEach((pixels, key) => {
      known += pixels;
      if (slotOf[Math.floor(key / model.numPrototypes)] === key % model.numPrototypes) right += pixels;
    });
    return {
      file: files[i],
      accuracy: known === 0 ? NaN : right / known,
      foregroundAri: indices[0].get(i) ?? null,
    };
  });

  const { best, worst } = extremes(pictures, ({ accuracy }) => accuracy);
  const show = Effect.fnUntraced(function* (places: readonly number[]) {
    const shown: ShownGrouping[] = [];
    const chosen = places.map((place) => files[place]);
    yield* pictureBatches(chosen, { stage: "drawing", batch, frame }).pipe(
      Stream.runForEach(Effect.fnUntraced(function* ({ first, pixels, count }) {
        const slots = yield* teacher.map(pixels, count);
        for (let i = 0; i < count; i++) {
          const place = places[first + i];
          const { labels } = framedLabels(yield* labelled[place].read, frame);
          shown.push({
            ...pictures[place],
            picture: unpack(pixels.subarray(i * S * S, (i + 1) * S * S), S),
            slots: Float32Array.from(Array.prototype.slice.call(slots, i * S * S, (i + 1) * S * S)),
            labels,
          });
        }
      })),
    );
    return shown;
  });
  return {
    results,
    pictures: files.length,
    picturesWithObjects: indices[0].size,
    best: yield* show(best),
    worst: yield* show(worst),
  } satisfies GroupingEvaluation as GroupingEvaluation;
}, Effect.scoped);

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
  function* (sampled: readonly LabelledFile[], { model, seed }: GroupingOptions, frame: Frame) {
    const S = frame.crop;
    const sample: Picture[] = [];
    yield* pictureBatches(sampled.map(({ file }) => file), { stage: "clustering colours", batch: 16, frame })
      .pipe(
        Stream.runForEach(({ pixels, count }) =>
          Effect.sync(() => {
            for (let i = 0; i < count; i++) {
              sample.push(unpack(pixels.subarray(i * S * S, (i + 1) * S * S), S));
            }
          })
        ),
      );
    const classes = new Set<number>();
    for (const { read } of sampled) (yield* read).labels.forEach((label) => label > 0 && classes.add(label));
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

/** How many pixels of one picture a class and a slot share, by (label − 1) · K + slot. */
type Shared = ReadonlyMap<number, number>;

const sharedPixels = (slots: ArrayLike<number>, labels: ArrayLike<number>, K: number): Shared => {
  const common = new Map<number, number>();
  let last = -1, run = 0; // neighbours mostly share both
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
