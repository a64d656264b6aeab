/**
 * Max pooling, as PyTorch's.
 *
 *     y[n,i,j,c] = max over a, b < size of x[n, i·stride + a − pad, j·stride + b − pad, c]
 *
 * The maximum is never a padding element; among equal values it is the first in row-major order, which alone receives
 * the gradient. A window with a NaN gives NaN.
 */
import type { Kernel, Operand } from "./graph/kernel.ts";
import type { AdapterTraits } from "./graph/lowering.ts";
import { requireWhole, type Shape, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, imageSlices, type Tensor } from "./graph/tensor.ts";
import { vectorized } from "./kernels/vectorized.ts";
import { kernel } from "./kernels/wgsl.ts";

/** A square window, the distance from one to the next, and padding, in pixels. */
export interface MaxPool {
  /** Pixels of a window along each axis. */
  readonly size: number;
  /** Pixels from one window to the next. */
  readonly stride: number;
  /** At most half of `size`, so that every window holds an element. */
  readonly pad: number;
}

/**
 * x [N, H, W, C] to [N, H', W', C] with H' = ⌊(H + 2·pad − size) / stride⌋ + 1. Throws ShapeError where no window fits.
 */
export const maxPool = (x: Tensor, attributes: MaxPool): Tensor => maxPoolOp([x], attributes);

const maxPoolOp = defineOp<MaxPool>("maxPool", {
  shape: ([x], { size, stride, pad }) => {
    requireWhole("maxPool", { size, stride }, 1, x.shape);
    requireWhole("maxPool", { pad }, 0, x.shape);
    const [N, H, W, C] = x.shape;
    const pooled = (length: number) => Math.floor((length + 2 * pad - size) / stride) + 1;
    return x.shape.length === 4 && 2 * pad <= size && pooled(H) > 0 && pooled(W) > 0
      ? [N, pooled(H), pooled(W), C]
      : shapeError("maxPool", `[N, H, W, C] no smaller than a window of ${size}, pad ≤ size / 2`, x.shape);
  },
  slices: imageSlices([0]),
  kernels: ({ inputs: [x], output, attributes }) => [windowKernel(x, output, attributes, "best")],
  backward: ({ inputs: [x], gradient, attributes }) => [maxPoolGradient([x, gradient], attributes)],
});

/** x [N, H, W, C] and the gradient of y to the gradient of x: by gathering, so that sums have a fixed order. */
const maxPoolGradient = defineOp<MaxPool>("maxPoolGradient", {
  shape: ([x]) => x.shape,
  slices: imageSlices([0, 1]),
  kernels: ({ inputs: [x, gradient], output, attributes, scratch, adapter }) => {
    const argmax = scratch(gradient.shape);
    return [
      windowKernel(x, argmax, attributes, "winner"),
      gatherKernel(argmax, gradient, output, attributes, adapter),
    ];
  },
});

/** Writes the maximum of every window, or its index within the window: row · size + column. */
const windowKernel = (x: Operand, y: Operand, window: MaxPool, what: "best" | "winner"): Kernel => {
  const { bind, width, alias } = vectorized(x.shape[3]);
  return kernel({
    label: "maxPool",
    reads: { x: bind(x) },
    writes: { y: bind(y) },
    sizes: sizesOf(x.shape, y.shape, width),
    threads: sizeOf(y.shape) / width,
    functions: `${alias}\nalias U = ${width === 4 ? "vec4<u32>" : "u32"};\n${constants(window)}`,
    main: /* wgsl */ `
  let c = id % p.lanes;
  let j = id / p.lanes % p.columns;
  let i = id / p.lanes / p.columns % p.rows;
  let n = id / p.lanes / p.columns / p.rows;
  var best = T(-3.4028234e38);
  var winner = T(0.0);
  for (var a = 0u; a < SIZE; a++) {
    let h = i * STRIDE + a - PAD; // wraps round to a large number above the map
    if (h >= p.height) { continue; }
    for (var b = 0u; b < SIZE; b++) {
      let w = j * STRIDE + b - PAD;
      if (w >= p.width) { continue; }
      let value = x[((n * p.height + h) * p.width + w) * p.lanes + c];
      let larger = (value > best) | ((bitcast<U>(value) & U(0x7fffffffu)) > U(0x7f800000u)); // or NaN
      winner = select(winner, T(f32(a * SIZE + b)), larger);
      best = select(best, value, larger);
    }
  }
  y[id] = ${what};`,
  });
};

/** Adds up, for every element, the gradients of the windows whose maximum it is. */
const gatherKernel = (
  argmax: Operand,
  gradient: Operand,
  dx: Operand,
  window: MaxPool,
  { cpu }: AdapterTraits,
): Kernel => {
  const { bind, width, alias } = vectorized(dx.shape[3]);
  const each = cpu ? dx.shape[2] : 1;
  return kernel({
    label: "maxPoolGradient",
    reads: { winner: bind(argmax), gradient: bind(gradient) },
    writes: { dx: bind(dx) },
    sizes: { ...sizesOf(dx.shape, gradient.shape, width), each },
    threads: sizeOf(dx.shape) / width / each,
    functions: `${alias}\n${constants(window)}`,
    main: /* wgsl */ `
  let c = id % p.lanes;
  let first = id / p.lanes * p.each; // a row's places follow each other: n, h, w
  let h = first / p.width % p.height + PAD;
  let n = first / p.width / p.height;
  for (var at = first; at < first + p.each; at++) {
    let w = at % p.width + PAD;
    var sum = T(0.0);
    // Windows i with i · STRIDE ≤ h < i · STRIDE + SIZE.
    for (var i = (max(h + STRIDE, SIZE) - SIZE) / STRIDE; i < min(h / STRIDE + 1u, p.rows); i++) {
      for (var j = (max(w + STRIDE, SIZE) - SIZE) / STRIDE; j < min(w / STRIDE + 1u, p.columns); j++) {
        let pooled = ((n * p.rows + i) * p.columns + j) * p.lanes + c;
        let own = (h - i * STRIDE) * SIZE + w - j * STRIDE;
        sum += select(T(0.0), gradient[pooled], winner[pooled] == T(f32(own)));
      }
    }
    dx[at * p.lanes + c] = sum;
  }`,
  });
};

const constants = ({ size, stride, pad }: MaxPool) =>
  `const SIZE = ${size}u; const STRIDE = ${stride}u; const PAD = ${pad}u;`;

const sizesOf = ([, height, width, C]: Shape, [, rows, columns]: Shape, vector: number) => ({
  height,
  width,
  rows,
  columns,
  lanes: C / vector,
});
