/** Classification of images, and its score. */

/** A class in the ranking of an image. */
export interface RankedClass {
  /** The number of the class. */
  readonly label: number;
  /** Its share of the votes, or its probability: 0 … 1. */
  readonly share: number;
}

/** The score of a classification. */
export interface ClassificationScore {
  /** The share of images whose class ranks first: 0 … 1. */
  readonly top1: number;
  /** The share of images whose class is among the first five: 0 … 1. */
  readonly top5: number;
}

/** An image and its ranking. */
export interface ClassifiedPicture {
  /** The file. */
  readonly file: string;
  /** Its class. */
  readonly label: number;
  /** The likeliest classes, at most five, the likeliest first. */
  readonly ranked: readonly RankedClass[];
}

/** The score of rankings, one for each image, by the images' classes. */
export const classificationScore = (
  ranked: readonly (readonly RankedClass[])[],
  truth: readonly { readonly label: number }[],
): ClassificationScore => {
  const share = (most: number) =>
    ranked.filter((votes, i) => votes.slice(0, most).some(({ label }) => label === truth[i].label)).length /
    truth.length;
  return { top1: share(1), top5: share(5) };
};

/** The images that an evaluation by classification has used. */
export interface UsedImages {
  /** The number of images to learn from. */
  readonly train: number;
  /** The number of images that are classified. */
  readonly val: number;
  /** Why each of the others cannot be decoded. */
  readonly leftOut: readonly string[];
}
