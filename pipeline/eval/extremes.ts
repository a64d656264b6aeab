const SHOWN = 6;

/** The places of the highest and of the lowest scores, the most extreme first; NaN is neither. */
export const extremes = <A>(all: readonly A[], scoreOf: (one: A) => number, count = SHOWN) => {
  const scores = all.map(scoreOf);
  const order = [...scores.keys()].filter((i) => !Number.isNaN(scores[i])).sort((a, b) =>
    scores[b] - scores[a]
  );
  const most = Math.min(count, Math.ceil(order.length / 2));
  return { best: order.slice(0, most), worst: order.slice(most).slice(-count).reverse() };
};
