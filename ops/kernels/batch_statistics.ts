/** Batch statistics from the partials that a GEMM's epilogue has written (`StatisticsEpilogue`). */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { Shape } from "../graph/shape.ts";
import { sumPartials } from "./partial_sums.ts";
import { vectorized } from "./vectorized.ts";
import { kernel } from "./wgsl.ts";

/** What a GEMM's epilogue has written about the rows of x [G, R, C]. */
export interface StatisticsPartials {
  /** [G · R / rowsPerPartial, 2, C]: the mean and M2 of so many rows each. */
  readonly partials: Operand;
  /** How many rows a partial is of. */
  readonly rowsPerPartial: number;
}

/** Partials that one invocation combines. */
const PARTIALS_EACH = 64;

/**
 * The shifted sums of x, [G, 2, C]: the sums of the differences to the first row of each group, and of their squares. With
 * n rows per partial and d the difference of a partial's mean to the first row, they are Σ n·d and Σ (M2 + n·d²), Chan's
 * formula for combining variances, around the first row instead of the overall mean.
 */
export const shiftedSumsOfPartials = (
  x: Operand,
  { partials, rowsPerPartial }: StatisticsPartials,
  output: Operand,
  scratch: (shape: Shape) => Operand,
): readonly Kernel[] => {
  const [G, R, C] = x.shape;
  const ofGroup = R / rowsPerPartial, chunks = Math.ceil(ofGroup / PARTIALS_EACH);
  const partial = chunks === 1 ? output : scratch([G, chunks, 2 * C]);
  const { bind, width, alias } = vectorized(C);
  const sums = kernel({
    label: "sumsOfMoments",
    reads: { x: bind(x), parts: bind(partials) },
    writes: { partial: bind(partial) },
    sizes: { R, lanes: C / width, chunks, ofGroup, each: rowsPerPartial },
    threads: G * chunks * C / width,
    functions: alias,
    main: /* wgsl */ `
  let column = id % p.lanes;
  let chunk = id / p.lanes % p.chunks;
  let block = id / p.lanes / p.chunks;
  let first = x[block * p.R * p.lanes + column];
  var sum = T(0.0);
  var squares = T(0.0);
  for (var i = chunk * ${PARTIALS_EACH}u; i < min(chunk * ${PARTIALS_EACH}u + ${PARTIALS_EACH}u, p.ofGroup); i++) {
    let at = (block * p.ofGroup + i) * 2u * p.lanes + column;
    let apart = parts[at] - first;
    sum += apart;
    squares += parts[at + p.lanes] + f32(p.each) * apart * apart;
  }
  let to = id / p.lanes * 2u * p.lanes + column;
  partial[to] = f32(p.each) * sum;
  partial[to + p.lanes] = squares;`,
  });
  return chunks === 1 ? [sums] : [sums, ...sumPartials(partial, output, G, chunks, 2 * C, scratch)];
};
