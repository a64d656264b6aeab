/** Softmax over the last axis with a temperature, and its logarithm. */
import { div, exp, mul, sub } from "./arithmetic.ts";
import { type Kernel, kernel, type Operand } from "./kernel.ts";
import { rowSums } from "./reduce.ts";
import {
  type AdapterTraits,
  defineOp,
  type OpDefinition,
  shapeError,
  sizeOf,
  type Tensor,
} from "./tensor.ts";
import { vectorized } from "./vectorized.ts";

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
  shape,
  sliceable: [0],
  kernels: ({ inputs: [x], output, attributes: { temperature }, adapter }) => [
    softmaxKernel(x, output, temperature, "exp(scaled) / sum", adapter),
  ],
  backward: ({ output: y, gradient: g, attributes: { temperature } }) => [
    mul(div(y, temperature), sub(g, rowSums([mul(g, y)]))),
  ],
});

const logSoftmaxOp = defineOp<Softmax>("logSoftmax", {
  shape,
  sliceable: [0],
  kernels: ({ inputs: [x], output, attributes: { temperature }, adapter }) => [
    softmaxKernel(x, output, temperature, "scaled - log(sum)", adapter),
  ],
  backward: ({ output: y, gradient: g, attributes: { temperature } }) => [
    div(sub(g, mul(exp(y), rowSums([g]))), temperature),
  ],
});

/** A row this long is worth a workgroup of its own: its loads are then neighbours. */
const LONG_ROW = 256;
const LANES = 64;

/**
 * `result` in terms of `scaled` = (x − largest of the row) / τ, which keeps exp() finite, and `sum` = Σ exp(scaled).
 * A row is the work of one invocation or, on a real GPU, of a workgroup, which combines its lanes' results in memory.
 */
const softmaxKernel = (
  x: Operand,
  y: Operand,
  temperature: number,
  result: string,
  { software }: AdapterTraits,
): Kernel => {
  const K = x.shape[x.shape.length - 1];
  const rows = sizeOf(x.shape) / K;
  const { bind, width, alias } = vectorized(K);
  const across = (f: string, v: string) =>
    width === 1 ? v : `${f}(${f}(${v}.x, ${v}.y), ${f}(${v}.z, ${v}.w))`;
  const shared = !software && K >= LONG_ROW;
  const combined = (f: string, v: string) => shared ? `combine${f}(${v}, lane)` : v;
  return kernel({
    label: "softmax",
    reads: { x: bind(x) },
    writes: { y: bind(y) },
    sizes: { width: K / width, rows },
    ...(shared
      ? { workgroupSize: LANES, workgroups: [Math.min(rows, 65535), Math.ceil(rows / 65535), 1] }
      : { threads: rows }),
    functions: `${alias}
fn add(a: f32, b: f32) -> f32 { return a + b; }
${shared ? combine("max", LANES) + combine("add", LANES) : ""}`,
    main: /* wgsl */ `
  ${
      shared
        ? `let row = group.y * groups.x + group.x;
  if (row >= p.rows) { return; }
  let start = lane; let step = ${LANES}u;`
        : "let row = id; let start = 0u; let step = 1u;"
    }
  let first = row * p.width;
  var tops = T(-3.4028234e38);
  for (var k = start; k < p.width; k += step) { tops = max(tops, x[first + k]); }
  let top = ${combined("max", across("max", "tops"))};
  var sums = T(0.0);
  for (var k = start; k < p.width; k += step) { sums += exp((x[first + k] - top) / ${temperature}); }
  let sum = ${combined("add", across("add", "sums"))};
  for (var k = start; k < p.width; k += step) {
    let scaled = (x[first + k] - top) / ${temperature};
    y[first + k] = ${result};
  }`,
  });
};

/** WGSL: f over the values of all lanes of a workgroup. */
const combine = (f: string, lanes: number) => /* wgsl */ `
var<workgroup> ${f}Parts: array<f32, ${lanes}>;
fn combine${f}(value: f32, lane: u32) -> f32 {
  ${f}Parts[lane] = value;
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { ${f}Parts[lane] = ${f}(${f}Parts[lane], ${f}Parts[lane + half]); }
  }
  workgroupBarrier();
  return ${f}Parts[0];
}`;
