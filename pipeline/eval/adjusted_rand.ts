/**
 * Adjusted Rand index of two labellings of the same elements, which need not use the same labels: 1 for the same
 * groups, about 0 for agreement by chance, negative for less than that.
 *
 *     ARI = (Σ_ij C(n_ij, 2) − E) / ((Σ_i C(a_i, 2) + Σ_j C(b_j, 2)) / 2 − E),   E = Σ_i C(a_i, 2) · Σ_j C(b_j, 2) / C(n, 2)
 *
 * with n_ij elements of label i in `a` and j in `b`, and sums a_i and b_j. It is 1 also where both labellings have one
 * group only, or only groups of one element. Source: Hubert and Arabie, Comparing Partitions, 1985.
 */
export const adjustedRandIndex = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  const ofA = new Map<number, number>();
  const ofB = new Map<number, number>();
  const ofBoth = new Map<number, Map<number, number>>();
  for (let i = 0; i < a.length; i++) {
    increment(ofA, a[i]);
    increment(ofB, b[i]);
    let row = ofBoth.get(a[i]);
    if (row === undefined) ofBoth.set(a[i], row = new Map());
    increment(row, b[i]);
  }
  const together = pairs([...ofBoth.values()].flatMap((row) => [...row.values()]));
  const [pairsOfA, pairsOfB] = [pairs([...ofA.values()]), pairs([...ofB.values()])];
  const expected = a.length < 2 ? 0 : pairsOfA * pairsOfB / pairs([a.length]);
  const most = (pairsOfA + pairsOfB) / 2;
  return most === expected ? 1 : (together - expected) / (most - expected);
};

const increment = (counts: Map<number, number>, label: number) =>
  counts.set(label, (counts.get(label) ?? 0) + 1);

/** The number of pairs within groups of these sizes. */
const pairs = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count * (count - 1) / 2, 0);

/**
 * The adjusted Rand index over the elements where `a` is not 0, known for the foreground of images as FG-ARI: how well
 * `b` tells the objects apart, whatever it does to the background. Null where `a` is 0 everywhere.
 */
export const foregroundRandIndex = (a: ArrayLike<number>, b: ArrayLike<number>): number | null => {
  const shown = Array.from(a, (_, i) => i).filter((i) => a[i] !== 0);
  return shown.length === 0 ? null : adjustedRandIndex(shown.map((i) => a[i]), shown.map((i) => b[i]));
};
