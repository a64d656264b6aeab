/** The best and the worst results of an evaluation. */

const SHOWN = 6;

/** The indices of the `count` highest and of the `count` lowest scores, the most extreme first. NaN is left out. */
export const extremes = <A>(
  all: readonly A[],
  scoreOf: (one: A) => number,
  count: number = SHOWN,
): { readonly best: readonly number[]; readonly worst: readonly number[] } => {
  const scores = all.map(scoreOf);
  const order = [...scores.keys()].filter((i) => !Number.isNaN(scores[i])).sort((a, b) =>
    scores[b] - scores[a]
  );
  const most = Math.min(count, Math.ceil(order.length / 2));
  return { best: order.slice(0, most), worst: order.slice(most).slice(-count).reverse() };
};
