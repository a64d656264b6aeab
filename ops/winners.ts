/** Which columns win the arg-max of at least one row. */
import { kernel } from "./kernel.ts";
import { defineOp, shapeError, type Tensor } from "./tensor.ts";

/**
 * scores [N, P, K] to [N, K] with 1 where k = argmaxⱼ scores[n, p, j] (the first of equals) for some p, else 0.
 * No gradient.
 */
export const winners = (scores: Tensor): Tensor => winnersOp([scores], undefined);

const winnersOp = defineOp("winners", {
  shape: ([scores]) =>
    scores.shape.length === 3
      ? [scores.shape[0], scores.shape[2]]
      : shapeError("winners", "scores [N, P, K]", scores.shape),
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [scores], output, scratch }) => {
    const [N, P, K] = scores.shape;
    const best = scratch([N, P], "u32");
    return [
      kernel({
        label: "argMax",
        reads: { scores },
        writes: { best },
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
        label: "winners",
        reads: { best },
        writes: { won: output },
        sizes: { P, K },
        threads: N * K,
        main: /* wgsl */ `
  let first = id / p.K * p.P;
  var wins = 0u;
  for (var i = first; i < first + p.P; i++) { wins += u32(best[i] == id % p.K); }
  won[id] = f32(min(wins, 1u));`,
      }),
    ];
  },
});
