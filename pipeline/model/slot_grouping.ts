/** The slot grouping stage: projections and prototypes to score maps and slots (paper, section 3.2). */
import { argmaxCounts } from "../../ops/argmax_counts.ts";
import { add, div, greater, log, maximum, mul, neg } from "../../ops/arithmetic.ts";
import { reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { matmul, matmulTransposed } from "../../ops/matmul.ts";
import { normalize } from "../../ops/normalize.ts";
import { columnSums, totals } from "../../ops/reduce.ts";
import { slice, transpose } from "../../ops/slice.ts";
import { softmax } from "../../ops/softmax.ts";

/** The grouping of images into slots. */
export interface Grouped {
  /** Cosine of location and prototype before any temperature, [N, h, w, K]. */
  readonly scores: Tensor;
  /** One pooled feature a slot, [N, K, D]. */
  readonly slots: Tensor;
}

/**
 * Projections [N, h, w, D] and prototypes [K, D] to scores and slots; `temperature` divides the cosines in the soft
 * assignment.
 */
export const slotGrouping = (projections: Tensor, prototypes: Tensor, temperature: number): Grouped => {
  const [N, h, w, D] = projections.shape;
  const [K] = prototypes.shape;
  const locations = reshape(projections, [N, h * w, D]);
  const scores = cosineScores(projections, prototypes);
  const attention = add(softmax(reshape(scores, [N, h * w, K]), temperature), 1e-6);
  const mass = reshape(columnSums([attention]), [N, K, 1]);
  return { scores, slots: div(matmulTransposed(attention, locations), mass) };
};

/** Cosines of projections [N, h, w, D] and prototypes [K, D]: [N, h, w, K]. */
export const cosineScores = (projections: Tensor, prototypes: Tensor): Tensor =>
  matmul(normalize(projections), transpose(normalize(prototypes), [1, 0]));

/** The mean of scores [N, h, w, K] over all locations of all maps, [K], which the centre follows. */
export const meanScores = (scores: Tensor): Tensor => {
  const [N, h, w, K] = scores.shape;
  return mul(reshape(columnSums([reshape(scores, [1, N * h * w, K])]), [K]), 1 / (N * h * w));
};

/** How a batch uses the prototypes, as scalars []. Both fall when slots collapse. */
export interface PrototypeUseInBatch {
  /** Number of prototypes that win at least one location. */
  readonly live: Tensor;
  /** Entropy of the prototypes' shares of locations, in nats: ln K when all win equally many, 0 when one wins all. */
  readonly entropy: Tensor;
}

/** How a batch uses the prototypes, by its scores [N, h, w, K]; `mean` takes a mean over ranks. */
export const prototypeUseInBatch = (scores: Tensor, mean: (x: Tensor) => Tensor): PrototypeUseInBatch => {
  const [N, h, w, K] = scores.shape;
  const counts = columnSums([reshape(argmaxCounts(reshape(scores, [N, h * w, K])), [1, N, K])]);
  const shares = div(mean(reshape(counts, [K])), N * h * w);
  const parts = totals([greater(shares, 0), neg(mul(shares, log(maximum(shares, 1e-30))))]);
  const [live, entropy] = [0, 1].map((i) => reshape(slice(parts, 0, i, 1), []));
  return { live, entropy };
};
