/** How well slots match the classes of things in pictures, which training never saw. */
import { bestAssignment } from "./assignment.ts";

/** A picture's slot and class, pixel by pixel. */
export interface LabelledMap {
  readonly slots: ArrayLike<number>; // 0 … K − 1
  readonly labels: ArrayLike<number>; // 1 … C; 0 where nobody knows, which does not count
}

export interface Counts {
  readonly slots: number;
  readonly classes: number;
}

/** Mean intersection over union (mIoU) of slots and classes, and the share of pixels that get their class: 0 … 1. */
export interface GroupingScore {
  /** mIoU with one slot a class, matched so that the mean is highest. The slots left over match nothing. */
  readonly matched: number;
  /** mIoU with every slot standing for the class that it covers most of, so that several slots may share a class. */
  readonly majority: number;
  /** Of the pixels whose class is known, the share that their slot gives the right one. */
  readonly accuracy: { readonly matched: number; readonly majority: number };
  /** The slot matched to each class, −1 where there are fewer slots than classes. */
  readonly slotOf: readonly number[];
  /** The class that each slot covers most of. */
  readonly classOf: readonly number[];
  /** Intersection over union of each class; null for one that no picture shows: it can be neither found nor missed. */
  readonly perClass: readonly (ClassScore | null)[];
}

export interface ClassScore {
  readonly pixels: number;
  readonly matched: number;
  readonly majority: number;
}

/** For each class, the pixels that it shares with each slot: [C][K]. */
export type Overlap = readonly Float64Array[];

export const noOverlap = ({ slots, classes }: Counts): Overlap =>
  Array.from({ length: classes }, () => new Float64Array(slots));

/** Adds the pixels of a picture. */
export const addOverlap = (overlap: Overlap, { slots, labels }: LabelledMap): void => {
  for (let i = 0; i < labels.length; i++) if (labels[i] > 0) overlap[labels[i] - 1][slots[i]]++;
};

/**
 * Scores slot maps of `slots` slots against label maps of `classes` classes. Slots and classes are counted over all
 * pictures together: a slot has to mean the same thing everywhere.
 */
export const scoreGrouping = (maps: Iterable<LabelledMap>, counts: Counts): GroupingScore => {
  const overlap = noOverlap(counts);
  for (const map of maps) addOverlap(overlap, map);
  return scoreOverlap(overlap);
};

/** The same from what pictures added up to. */
export const scoreOverlap = (shared: Overlap): GroupingScore => {
  const K = shared[0].length;
  const ofSlot = Array.from({ length: K }, (_, k) => shared.reduce((sum, row) => sum + row[k], 0));
  const ofClass = shared.map((row) => row.reduce((sum, count) => sum + count, 0));
  const known = ofClass.reduce((sum, count) => sum + count, 0);

  const overlaps = shared.map((row, c) =>
    Array.from(row, (both, k) => ratio(both, ofClass[c] + ofSlot[k] - both))
  );
  const slotOf = bestAssignment(overlaps);
  const classOf = ofSlot.map((_, k) => largest(shared.map((row) => row[k])));
  let right = 0, rightOfMajority = 0;
  const perClass = shared.map((row, c): ClassScore | null => {
    let both = 0, either = ofClass[c];
    classOf.forEach((owner, k) => {
      if (owner !== c) return;
      both += row[k];
      either += ofSlot[k] - row[k];
    });
    right += slotOf[c] === -1 ? 0 : row[slotOf[c]];
    rightOfMajority += both;
    return ofClass[c] === 0 ? null : {
      pixels: ofClass[c],
      matched: slotOf[c] === -1 ? 0 : overlaps[c][slotOf[c]],
      majority: ratio(both, either),
    };
  });
  const shown = perClass.filter((score) => score !== null);
  const mean = (of: (score: ClassScore) => number) =>
    ratio(shown.reduce((sum, score) => sum + of(score), 0), shown.length);
  return {
    matched: mean(({ matched }) => matched),
    majority: mean(({ majority }) => majority),
    accuracy: { matched: ratio(right, known), majority: ratio(rightOfMajority, known) },
    slotOf,
    classOf,
    perClass,
  };
};

const ratio = (part: number, whole: number) => whole === 0 ? 0 : part / whole;

const largest = (values: readonly number[]) => values.indexOf(Math.max(...values));
