/** How well slots match the classes of things in pictures, which training never saw. */
import { bestAssignment } from "./assignment.ts";

/** A picture's slot and class, pixel by pixel. */
export interface LabelledMap {
  readonly slots: ArrayLike<number>; // 0 … K − 1
  readonly labels: ArrayLike<number>; // 1 … C; 0 where nobody knows, which does not count
}

/** Mean intersection over union (mIoU) of slots and classes: 0 … 1. */
export interface GroupingScore {
  /** With one slot a class, matched so that the mean is highest. The slots left over match nothing. */
  readonly matched: number;
  /** With every slot standing for the class that it covers most of, so that several slots may share a class. */
  readonly majority: number;
  /** The slot matched to each class, −1 where there are fewer slots than classes. */
  readonly slotOf: readonly number[];
}

/**
 * Scores slot maps of `slots` slots against label maps of `classes` classes. Slots and classes are counted over all
 * pictures together: a slot has to mean the same thing everywhere.
 */
export const scoreGrouping = (
  maps: Iterable<LabelledMap>,
  { slots: K, classes: C }: { readonly slots: number; readonly classes: number },
): GroupingScore => {
  const shared = Array.from({ length: C }, () => new Float64Array(K)); // pixels of both class and slot
  for (const { slots, labels } of maps) {
    for (let i = 0; i < labels.length; i++) if (labels[i] > 0) shared[labels[i] - 1][slots[i]]++;
  }
  const ofSlot = Array.from({ length: K }, (_, k) => shared.reduce((sum, row) => sum + row[k], 0));
  const ofClass = shared.map((row) => row.reduce((sum, count) => sum + count, 0));

  const overlaps = shared.map((row, c) =>
    Array.from(row, (both, k) => ratio(both, ofClass[c] + ofSlot[k] - both))
  );
  const slotOf = bestAssignment(overlaps);
  const classOf = ofSlot.map((_, k) => largest(shared.map((row) => row[k])));
  const united = shared.map((row, c) => {
    let both = 0, either = ofClass[c];
    classOf.forEach((owner, k) => {
      if (owner !== c) return;
      both += row[k];
      either += ofSlot[k] - row[k];
    });
    return ratio(both, either);
  });

  // A class that no picture shows can be neither found nor missed.
  const meanOverShown = (values: readonly number[]) => {
    const shown = values.filter((_, c) => ofClass[c] > 0);
    return ratio(shown.reduce((sum, value) => sum + value, 0), shown.length);
  };
  return {
    matched: meanOverShown(slotOf.map((k, c) => k === -1 ? 0 : overlaps[c][k])),
    majority: meanOverShown(united),
    slotOf,
  };
};

const ratio = (part: number, whole: number) => whole === 0 ? 0 : part / whole;

const largest = (values: readonly number[]) => values.indexOf(Math.max(...values));
