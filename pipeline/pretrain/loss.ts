/** The losses: self-distillation of groupings on the views' overlap, and contrast of slots (paper, section 3.3). */
import { argmaxUsed } from "../../ops/argmax_counts.ts";
import { div, mul, neg, sub } from "../../ops/arithmetic.ts";
import { blockMeanWeights } from "../../ops/block_mean_weights.ts";
import { compactRows } from "../../ops/compact_rows.ts";
import { crossEntropyRows } from "../../ops/cross_entropy.ts";
import { gatherIndices, gatherRows } from "../../ops/gather_rows.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import { reshape, stopGradient, type Tensor } from "../../ops/graph/tensor.ts";
import { matmul } from "../../ops/matmul.ts";
import { normalize } from "../../ops/normalize.ts";
import { rowSums, sum } from "../../ops/reduce.ts";
import { roiAlign } from "../../ops/roi_align.ts";
import { slice, transpose } from "../../ops/slice.ts";
import { logSoftmax, softmax } from "../../ops/softmax.ts";
import { toFloat } from "../../ops/to_float.ts";
import type { Grouped } from "../model/slot_grouping.ts";
import type { Sync } from "../ranks/sync.ts";

/** Temperature of the slot contrast. */
const CONTRAST_TEMPERATURE = 0.2;

/**
 * Score maps [2B, h, w, K] in the frame of the views' intersection, both views upright, of the same shape; `coords`
 * [2B, 4] and `flips` [2B] as in `Views`.
 */
export const aligned = (scores: Tensor, coords: Tensor, flips: Tensor): Tensor =>
  roiAlign(scores, coords, flips);

/** The first (0) or second (1) views of x [2B, ...], which has all first views before all second ones: [B, ...]. */
export const halfOfBatch = (x: Tensor, index: 0 | 1): Tensor => {
  const half = x.shape[0] / 2;
  return slice(x, 0, index * half, half);
};

/** Temperatures of the grouping loss. */
export interface DistillationOptions {
  /** Divides the teacher's scores, less the centre. */
  readonly teacherTemp: number;
  /** Divides the student's scores. */
  readonly studentTemp: number;
}

/**
 * Cross-entropy of the student's grouping against the teacher's, a mean over the locations of each image, [B]:
 *
 *     − Σ_k softmax((teacher − centre) / teacherTemp) · log softmax(student / studentTemp)
 *
 * student, teacher: aligned score maps [B, h, w, K] of different views; centre: [K].
 */
export const groupingLoss = (
  student: Tensor,
  teacher: Tensor,
  centre: Tensor,
  options: DistillationOptions,
): Tensor => {
  const target = stopGradient(softmax(sub(teacher, centre), options.teacherTemp));
  const [B, h, w, K] = student.shape;
  const products = reshape(mul(target, logSoftmax(student, options.studentTemp)), [B, h * w * K]);
  return reshape(div(neg(rowSums([products])), h * w), [B]);
};

/** One term of the slot contrast. */
export interface Contrast {
  /** The loss of this rank, []. */
  readonly loss: Tensor;
  /** Number of queries on all ranks, [1]. */
  readonly positives: Tensor;
  /** Contribution of each query to the loss, [R]. */
  readonly perQuery: Tensor;
  /** The slot of each query as image · K + prototype, [R], u32. */
  readonly rows: Tensor;
}

/**
 * Contrast of slots between views (docs/method.md, section 6). Queries are the student's slots of one view that the
 * student uses there and the teacher uses in the other view; keys are all slots that the teacher uses in the other view,
 * on all ranks. The loss is the cross-entropy of each query against the key of its own image and prototype.
 *
 * student, teacher: one view each, [B, h, w, K] scores and [B, K, D] slots; `predict` maps the compacted queries
 * [R, D], of which the first `count` ([1], u32) are filled. `blocks` is the number of ranks whose images follow each other
 * in B: each rank averages over its own queries. Fewer than two queries in all give 0 (docs/method.md, section 12,
 * point 8).
 */
export const slotContrast = (
  student: Grouped,
  teacher: Grouped,
  predict: (queries: Tensor, count: Tensor) => Tensor,
  sync: Sync,
  blocks: number,
): Contrast => {
  const [B, K, D] = student.slots.shape;
  const inUse = ({ scores }: Grouped) =>
    reshape(argmaxUsed(reshape(scores, [B, sizeOf(scores.shape) / B / K, K])), [B * K]);
  // No image can use more slots than it has locations.
  const capacity = B * Math.min(K, sizeOf(student.scores.shape) / B / K);
  const used = inUse(teacher);
  const positive = mul(inUse(student), used);

  const queries = compactRows(positive, capacity);
  const rows = gatherRows(reshape(student.slots, [B * K, D]), queries);
  const predictions = normalize(predict(rows, queries.count));

  const keys = compactRows(used, capacity);
  const own: Keys = {
    rows: stopGradient(normalize(gatherRows(reshape(teacher.slots, [B * K, D]), keys))),
    count: keys.count,
    labels: gatherIndices(keys.positions, queries.indices),
  };
  const { rows: targets, count, labels } = sync.world === 1
    ? own
    : keysOfAllRanks(own, gatherRows(reshape(used, [B * K, 1]), keys), sync);

  const cosines = matmul(predictions, transpose(targets, [1, 0]), queries.count);
  const logits = div(cosines, CONTRAST_TEMPERATURE);
  const entropies = crossEntropyRows(logits, labels, queries.count, count);
  const positives = sync.sum(toFloat(queries.count));
  const weights = blockMeanWeights(queries, positives, { blocks, rowsPerBlock: B / blocks * K, atLeast: 2 });
  const perQuery = mul(mul(entropies, weights), 2 * CONTRAST_TEMPERATURE);
  return { loss: sum(perQuery), positives, perQuery, rows: queries.indices };
};

/** The slots that queries are compared with. */
interface Keys {
  /** [capacity, D], of which the first `count` ([1], u32) are filled. */
  readonly rows: Tensor;
  readonly count: Tensor;
  /** The row of each query's own key, [R], u32. */
  readonly labels: Tensor;
}

/**
 * Keys of all ranks without gaps, in the order of ranks. `filled` [capacity, 1] is 1 for each row of `rows` that is a key.
 */
const keysOfAllRanks = ({ rows, labels }: Keys, filled: Tensor, { rank, world, gather }: Sync): Keys => {
  const [capacity, D] = rows.shape;
  const chosen = compactRows(reshape(gather(filled), [world * capacity]), world * capacity);
  return {
    rows: gatherRows(reshape(gather(rows), [world * capacity, D]), chosen),
    count: chosen.count,
    labels: gatherIndices(chosen.positions, labels, rank * capacity),
  };
};
