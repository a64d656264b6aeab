/** Which columns are the arg-max of rows, and of how many. */
import { shapeError } from "./graph/shape.ts";
import { defineOp, imageSlices, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";

/**
 * scores [N, P, K] to [N, K] with 1 where k = argmaxⱼ scores[n, p, j] (the first of equals) for some p, else 0.
 * No gradient.
 */
export const argmaxUsed = (scores: Tensor): Tensor => winsOp([scores], { most: 1 });

/** scores [N, P, K] to [N, K]: for how many p column k is the largest (the first of equals). No gradient. */
export const argmaxCounts = (scores: Tensor): Tensor => winsOp([scores], { most: scores.shape[1] });

/** scores [N, P, K] to [N, K]: for how many p column k is the arg-max, but at most `most`. */
const winsOp = defineOp<{ readonly most: number }>("wins", {
  precision: "full",
  shape: ([scores]) =>
    scores.shape.length === 3
      ? [scores.shape[0], scores.shape[2]]
      : shapeError("wins", "scores [N, P, K]", scores.shape),
  slices: imageSlices([0]),
  kernels: ({ inputs: [scores], output, scratch, attributes: { most } }) => {
    const [N, P, K] = scores.shape;
    const indices = scratch([N, P], "u32");
    return [
      kernel({
        label: "argMax",
        reads: { scores },
        writes: { best: indices },
        sizes: { K },
        threads: N * P,
        main: /* wgsl */ `
  var top = scores[id * p.K];
  var winner = 0u;
  for (var k = 1u; k < p.K; k++) {
    let score = scores[id * p.K + k];
    if (score > top) { top = score; winner = k; }
  }
  best[id] = winner;`,
      }),
      kernel({
        label: "wins",
        reads: { best: indices },
        writes: { won: output },
        sizes: { P, K, most },
        threads: N * K,
        main: /* wgsl */ `
  let first = id / p.K * p.P;
  var wins = 0u;
  for (var i = first; i < first + p.P; i++) { wins += u32(best[i] == id % p.K); }
  won[id] = f32(min(wins, p.most));`,
      }),
    ];
  },
});
