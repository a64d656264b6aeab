/** Softmax over the last axis with a temperature, and its logarithm. */
import { div, exp, mul, sub } from "./arithmetic.ts";
import type { Operand } from "./graph/kernel.ts";
import type { AdapterTraits, Variants } from "./graph/lowering.ts";
import { shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, type OpDefinition, type Tensor } from "./graph/tensor.ts";
import { rowVariants, type RowWork } from "./kernels/row_reduction.ts";
import { vectorized } from "./kernels/vectorized.ts";
import { kernel } from "./kernels/wgsl.ts";
import { rowSums } from "./reduce.ts";

interface Softmax {
  readonly temperature: number;
}

/** y[…, k] = exp(x[…, k] / τ) / Σⱼ exp(x[…, j] / τ) for x, y [..., K] and a temperature τ > 0. */
export const softmax = (x: Tensor, temperature: number): Tensor => softmaxOp([x], { temperature });

/** y[…, k] = x[…, k] / τ − log Σⱼ exp(x[…, j] / τ) for x, y [..., K] and a temperature τ > 0. */
export const logSoftmax = (x: Tensor, temperature: number): Tensor => logSoftmaxOp([x], { temperature });

const shape: OpDefinition<Softmax>["shape"] = ([x], { temperature }) =>
  x.shape.length > 0 && temperature > 0
    ? x.shape
    : shapeError("softmax", `[..., K] and a temperature above 0, not ${temperature}`, x.shape);

const softmaxOp = defineOp<Softmax>("softmax", {
  precision: "full",
  shape,
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [x], output, attributes: { temperature }, adapter, choose }) =>
    choose(softmaxKernels(x, output, temperature, "exp(scaled) / sum", adapter)),
  backward: ({ output: y, gradient: g, attributes: { temperature } }) => [
    mul(div(y, temperature), sub(g, rowSums([mul(g, y)]))),
  ],
});

const logSoftmaxOp = defineOp<Softmax>("logSoftmax", {
  precision: "full",
  shape,
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [x], output, attributes: { temperature }, adapter, choose }) =>
    choose(softmaxKernels(x, output, temperature, "scaled - log(sum)", adapter)),
  backward: ({ output: y, gradient: g, attributes: { temperature } }) => [
    div(sub(g, mul(exp(y), rowSums([g]))), temperature),
  ],
});

/**
 * Kernels that store `result`, WGSL of `scaled` = (x − maximum of the row) / τ, which keeps exp() finite, and `sum` = Σ
 * exp(scaled).
 */
const softmaxKernels = (
  x: Operand,
  y: Operand,
  temperature: number,
  result: string,
  adapter: AdapterTraits,
): Variants => {
  const K = x.shape[x.shape.length - 1];
  const rows = sizeOf(x.shape) / K;
  const { bind, width, alias } = vectorized(K);
  const kernelOf = (work: RowWork) =>
    kernel({
      label: "softmax",
      reads: { x: bind(x) },
      writes: { y: bind(y) },
      sizes: { width: K / width, rows },
      ...work.launch,
      functions: `${alias}\n${work.functions}`,
      main: /* wgsl */ `
  ${work.origin}
  let first = row * p.width;
  var tops = T(-3.4028234e38);
  for (var k = start; k < p.width; k += step) { tops = max(tops, x[first + k]); }
  let top = ${work.largest(width === 4 ? "max(max(tops.x, tops.y), max(tops.z, tops.w))" : "tops")};
  var sums = T(0.0);
  for (var k = start; k < p.width; k += step) { sums += exp((x[first + k] - top) / f32(${temperature})); }
  let sum = ${work.total(width === 4 ? "dot(sums, T(1.0))" : "sums")};
  for (var k = start; k < p.width; k += step) {
    let scaled = (x[first + k] - top) / f32(${temperature});
    y[first + k] = ${result};
  }`,
    });
  return rowVariants(K, adapter, (split) => [kernelOf(split(rows))]);
};
