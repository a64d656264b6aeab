/** Pictures sorted into classes, and how well. */

/** A class that a picture may be of. */
export interface RankedClass {
  readonly label: number;
  readonly share: number; // of the votes, or its probability: 0 … 1
}

export interface ClassificationScore {
  readonly top1: number; // share of the pictures whose class comes first: 0 … 1
  readonly top5: number; // or is among the first five
}

/** What became of one picture. */
export interface ClassifiedPicture {
  readonly file: string;
  readonly label: number;
  readonly ranked: readonly RankedClass[]; // likeliest first, at most five
}

/** How often the class of a picture ranks first, and among the first five. */
export const classificationScore = (
  ranked: readonly (readonly RankedClass[])[],
  truth: readonly { readonly label: number }[],
): ClassificationScore => {
  const share = (most: number) =>
    ranked.filter((votes, i) => votes.slice(0, most).some(({ label }) => label === truth[i].label)).length /
    truth.length;
  return { top1: share(1), top5: share(5) };
};
