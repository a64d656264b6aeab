/** Scores of semantic segmentation: pixels counted by class and prediction, over a whole data set (docs/method.md, section 19). */

/** Pixels by their class and the class that was predicted. Whole numbers, exact up to 2^53. */
export interface Confusion {
  /** The number of classes, K. */
  readonly classes: number;
  /** [K, K]: a row a class, a column a prediction. */
  readonly counts: Float64Array;
}

/** The score of one class. */
export interface ClassScore {
  /** Pixels of this class that are predicted as such. */
  readonly hits: number;
  /** Pixels of this class. */
  readonly labelled: number;
  /** Labelled pixels that are predicted as this class. */
  readonly predicted: number;
  /** Intersection over union: 0 … 1; null where the class is neither labelled nor predicted (0/0). */
  readonly iou: number | null;
  /** The share of its pixels that are predicted as such: 0 … 1; null where no pixel has the class. */
  readonly accuracy: number | null;
}

/** The scores of a segmentation: 0 … 1. Means are over the classes whose value is not 0/0. */
export interface SegmentationScores {
  /** The share of all labelled pixels with the right class; NaN where no pixel is labelled. */
  readonly aAcc: number;
  /** Mean intersection over union; NaN where no class is labelled or predicted. */
  readonly mIoU: number;
  /** Mean share of a class's pixels that have it; NaN where no pixel is labelled. */
  readonly mAcc: number;
  /** The score of each class, by its number. */
  readonly perClass: readonly ClassScore[];
}

/** The counts of no pixels. */
export const noConfusion = (classes: number): Confusion => ({
  classes,
  counts: new Float64Array(classes ** 2),
});

/** Adds the pixels of a map to the counts, but for those whose label is no class; both have a number a pixel. */
export const addToConfusion = (
  { classes, counts }: Confusion,
  { labels, predictions }: {
    readonly labels: ArrayLike<number>;
    readonly predictions: ArrayLike<number>;
  },
): void => {
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] < classes) counts[labels[i] * classes + predictions[i]]++;
  }
};

/**
 * The scores of a data set: counts are summed over all its pixels before they are divided. Those of one image come from
 * its own counts.
 */
export const segmentationScores = ({ classes, counts }: Confusion): SegmentationScores => {
  const perClass = Array.from({ length: classes }, (_, c): ClassScore => {
    const hits = counts[c * classes + c];
    let labelled = 0, predicted = 0;
    for (let other = 0; other < classes; other++) {
      labelled += counts[c * classes + other];
      predicted += counts[other * classes + c];
    }
    const union = labelled + predicted - hits;
    return {
      hits,
      labelled,
      predicted,
      iou: union === 0 ? null : hits / union,
      accuracy: labelled === 0 ? null : hits / labelled,
    };
  });
  const sum = (count: (score: ClassScore) => number) =>
    perClass.reduce((total, score) => total + count(score), 0);
  return {
    aAcc: sum(({ hits }) => hits) / sum(({ labelled }) => labelled),
    mIoU: meanOf(perClass.map(({ iou }) => iou)),
    mAcc: meanOf(perClass.map(({ accuracy }) => accuracy)),
    perClass,
  };
};

/** The mean of the values that are there; NaN where none is. */
const meanOf = (values: readonly (number | null)[]): number => {
  const known = values.filter((value) => value !== null);
  return known.reduce((sum, value) => sum + value, 0) / known.length;
};

/** A share in per cent with two digits, as tables of segmentation have it; "–" where there is none. */
export const percent = (share: number | null): string =>
  share === null || Number.isNaN(share) ? "–" : (100 * share).toFixed(2);
