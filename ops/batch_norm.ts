/**
 * Batch normalisation (Ioffe and Szegedy 2015) over groups of rows, each with its own statistics:
 *
 *     y = (x − mean) / sqrt(variance + 1e-5) · weight + bias
 *
 * x: [G, R, C], weight and bias: [C]; mean and (biased) variance over the R rows of each of G groups. With two views of
 * each image in one batch, G = 2 takes statistics per view.
 */
import { add, defineElementwise, div, maximum, mul, neg, rsqrt, sub } from "./arithmetic.ts";
import { shapeError, sizeOf } from "./graph/shape.ts";
import { constant, defineOp, reshape, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";
import { columnSums, shiftedSums, sum } from "./reduce.ts";
import { slice } from "./slice.ts";
import { toFloat } from "./to_float.ts";

const EPSILON = 1e-5;
const MOMENTUM = 0.1;

/** The first two moments, mean and variance, of the rows of each group. */
export interface Moments {
  /** [G, 2, C]: mean and biased variance. */
  readonly values: Tensor;
  /** The rows of a group that they were taken over, [], f32. */
  readonly rows: Tensor;
  /** For moments over the rows of several ranks: sums a tensor over the ranks, which the gradient needs. */
  readonly total?: (sums: Tensor) => Tensor;
}

/** Mean and variance over the rows of x [G, R, C]; with `count` ([1], u32; G = 1) over the first `count` rows. */
export const batchMoments = (x: Tensor, count?: Tensor): Moments => {
  const rows = count === undefined ? constant(x.shape[1]) : reshape(toFloat(count), []);
  // Shifted sums: the squares of the values themselves would cancel where the mean is large.
  const shift = slice(x, 1, 0, 1);
  const sums = shiftedSums(x, count);
  const means = div(sums, maximum(rows, 1));
  return { values: momentsOp([means, slice(means, 1, 0, 1), shift, IS_MEAN]), rows };
};

/** 1 for the mean and 0 for the variance, [1, 2, 1]. */
const IS_MEAN = constant([1, 0], [1, 2, 1]);

const momentsOp = defineOp("moments", {
  precision: "full",
  shape: ([means]) => means.shape,
  expression: ([means, mean, shift, isMean]) =>
    `select(max(${means} - ${mean} * ${mean}, T(0.0)), ${shift} + ${mean}, ${isMean} > T(0.0))`,
});

/**
 * Moments of all rows from the moments of parts of them: values [parts, G, 2, C] over rows [parts] (which may be 0).
 * They are combined by Chan's formula, around the overall mean, so that nothing cancels.
 */
export const combinedMoments = (values: Tensor, rows: Tensor): Moments => ({
  values: combinedOp([values, rows], undefined),
  rows: sum(rows),
});

const combinedOp = defineOp("combinedMoments", {
  shape: ([values, rows]) =>
    values.shape.length === 4 && values.shape[2] === 2 && sizeOf(rows.shape) === values.shape[0]
      ? values.shape.slice(1)
      : shapeError("combinedMoments", "values [parts, G, 2, C] and rows [parts]", values.shape, rows.shape),
  kernels: ({ inputs: [values, rows], output }) => [kernel({
    label: "combinedMoments",
    reads: { values, rows },
    writes: { moments: output },
    sizes: { parts: values.shape[0], C: values.shape[3], each: sizeOf(output.shape) },
    threads: sizeOf(output.shape) / 2,
    main: /* wgsl */ `
  let at = id / p.C * 2u * p.C + id % p.C;
  var total = 0.0;
  var mean = 0.0;
  for (var i = 0u; i < p.parts; i++) {
    total += rows[i];
    mean += rows[i] * values[i * p.each + at];
  }
  mean /= max(total, 1.0);
  var variance = 0.0;
  for (var i = 0u; i < p.parts; i++) {
    let apart = values[i * p.each + at] - mean;
    variance += rows[i] * (values[i * p.each + at + p.C] + apart * apart);
  }
  moments[at] = mean;
  moments[at + p.C] = variance / max(total, 1.0);`,
  })],
});

/**
 * x [G, R, C] normalised by the moments of its rows, or of its rows and those of other ranks; with `count`
 * ([1], u32; G = 1) only the first `count` rows have gradients. The gradient includes the dependence of the moments on
 * x, and is that of the sum of the losses of all ranks.
 */
export const batchNorm = (
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  moments: Moments,
  count?: Tensor,
): Tensor => {
  const mean = slice(moments.values, 1, 0, 1);
  const scale = rsqrt(add(slice(moments.values, 1, 1, 1), EPSILON));
  return normalizeOp([x, mean, scale, weight, bias], { ...moments, count });
};

const normalizeOp = defineElementwise<Omit<Moments, "values"> & { readonly count?: Tensor }>(
  "batchNorm",
  ([x, mean, scale, weight, bias]) => `(${x} - ${mean}) * (${scale} * ${weight}) + ${bias}`,
  ({ inputs: [x, mean, scale, weight], gradient, attributes: { rows, count, total = (sums) => sums } }) => {
    const [G, , C] = x.shape;
    const normalized = mul(sub(x, mean), scale);
    const sums = columnSums([gradient, mul(gradient, normalized)], count);
    const sumOf = (term: number) => slice(sums, 1, term, 1);
    const overGroups = (term: number) =>
      G === 1 ? reshape(sumOf(term), [C]) : reshape(columnSums([reshape(sumOf(term), [1, G, C])]), [C]);
    const [all, n] = [total(sums), maximum(rows, 1)];
    const meanOf = (term: number) => div(slice(all, 1, term, 1), n);
    const centred = sub(sub(gradient, meanOf(0)), mul(normalized, meanOf(1)));
    return [mul(mul(weight, scale), centred), null, null, overGroups(1), overGroups(0)];
  },
);

/** x [..., C] normalised by running statistics [3, C], see `runningAfter`. */
export const batchNormByRunning = (x: Tensor, weight: Tensor, bias: Tensor, running: Tensor): Tensor => {
  const scale = mul(weight, rsqrt(add(slice(running, 0, 1, 1), EPSILON)));
  return byRunningOp([x, slice(running, 0, 0, 1), scale, bias], { weight, running, epsilon: EPSILON });
};

/** The attributes of the op "batchNormByRunning", its scale and mean before they are combined: exporters read them. */
export interface ByRunning {
  /** [C] */
  readonly weight: Tensor;
  /** [3, C], see `runningAfter`. */
  readonly running: Tensor;
  /** Added to the variance. */
  readonly epsilon: number;
}

const byRunningOp = defineElementwise<ByRunning>(
  "batchNormByRunning",
  ([x, mean, scale, bias]) => `(${x} - ${mean}) * ${scale} + ${bias}`,
  ({ inputs: [x, mean, scale], gradient }) => {
    const dx = mul(gradient, scale);
    return [dx, neg(dx), mul(gradient, sub(x, mean)), gradient];
  },
);

/**
 * Running statistics [3, C] (mean, unbiased variance, number of batches) after an update by the moments of each group
 * in turn, with PyTorch's momentum 0.1. Moments of fewer than two rows do not change them.
 */
export const runningAfter = (running: Tensor, moments: Moments): Tensor =>
  runningOp([running, moments.values, moments.rows]);

const runningOp = defineOp("runningStatistics", {
  shape: ([running, moments]) =>
    running.shape.length === 2 && running.shape[0] === 3 && moments.shape.length === 3 &&
      moments.shape[1] === 2 &&
      moments.shape[2] === running.shape[1]
      ? running.shape
      : shapeError("runningAfter", "running [3, C] and moments [G, 2, C]", running.shape, moments.shape),
  kernels: ({ inputs: [running, moments, rows], output }) => [kernel({
    label: "runningStatistics",
    reads: { running, moments, rows },
    writes: { next: output },
    sizes: { C: running.shape[1], G: moments.shape[0] },
    threads: running.shape[1],
    main: /* wgsl */ `
  var mean = running[id];
  var variance = running[p.C + id];
  var batches = running[2u * p.C + id];
  if (rows[0] >= 2.0) {
    let unbiased = rows[0] / (rows[0] - 1.0);
    for (var g = 0u; g < p.G; g++) {
      mean += ${MOMENTUM} * (moments[2u * g * p.C + id] - mean);
      variance += ${MOMENTUM} * (moments[(2u * g + 1u) * p.C + id] * unbiased - variance);
      batches += 1.0;
    }
  }
  next[id] = mean;
  next[p.C + id] = variance;
  next[2u * p.C + id] = batches;`,
  })],
});
