/** How well slots match the classes of an image's pixels, which training never saw. */
import { bestAssignment } from "./assignment.ts";

/** The slot and the class of each pixel of an image. */
export interface LabelledMap {
  /** Slots, 0 … K − 1. */
  readonly slots: ArrayLike<number>;
  /** Classes, 1 … C; 0 where the class is unknown, which does not count. */
  readonly labels: ArrayLike<number>;
}

/** How many there are. */
export interface Counts {
  /** The number of slots, K. */
  readonly slots: number;
  /** The number of classes, C. */
  readonly classes: number;
}

/** Mean intersection over union (mIoU) of slots and classes, and the share of pixels with the right class: 0 … 1. */
export interface GroupingScore {
  /**
   * mIoU with one slot for each class, assigned so that the mean is highest. Slots that are left over match nothing.
   */
  readonly matched: number;
  /**
   * mIoU with every slot assigned to the class of which it covers most pixels, so that several slots may share a
   * class.
   */
  readonly majority: number;
  /** The share of the pixels of known class whose slot is assigned to it. */
  readonly accuracy: { readonly matched: number; readonly majority: number };
  /** The slot assigned to each class; −1 without one, where there are fewer slots than classes. */
  readonly slotOf: readonly number[];
  /** The class of which each slot covers most pixels. */
  readonly classOf: readonly number[];
  /**
   * Intersection over union of each class; null for one that does not occur, since it can be neither found nor missed.
   */
  readonly perClass: readonly (ClassScore | null)[];
}

/** The score of one class. */
export interface ClassScore {
  /** Its pixels. */
  readonly pixels: number;
  /** IoU with the slot that is assigned to it. */
  readonly matched: number;
  /** IoU with all slots of which it is the majority. */
  readonly majority: number;
}

/** The number of pixels that each class shares with each slot, [C][K]. */
export type Overlap = readonly Float64Array[];

/** The overlap of no pixels. */
export const noOverlap = ({ slots, classes }: Counts): Overlap =>
  Array.from({ length: classes }, () => new Float64Array(slots));

/** Adds the pixels of an image. */
export const addOverlap = (overlap: Overlap, { slots, labels }: LabelledMap): void => {
  for (let i = 0; i < labels.length; i++) if (labels[i] > 0) overlap[labels[i] - 1][slots[i]]++;
};

/** The score of slot maps over all images together: a slot has to mean the same thing everywhere. */
export const scoreGrouping = (maps: Iterable<LabelledMap>, counts: Counts): GroupingScore => {
  const overlap = noOverlap(counts);
  for (const map of maps) addOverlap(overlap, map);
  return scoreOverlap(overlap);
};

/** The score from an overlap. */
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
