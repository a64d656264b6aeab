/**
 * Average pooling. Windows across the border are averaged over their elements inside (PyTorch's `ceil_mode=True,
 * count_include_pad=False`).
 *
 *     y[n,i,j,c] = mean over a, b < size, inside the map, of x[n, i·stride + a, j·stride + b, c]
 */
import { requireWhole, type Shape, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, imageSlices, type Tensor } from "./graph/tensor.ts";
import { vectorized } from "./kernels/vectorized.ts";
import { kernel } from "./kernels/wgsl.ts";

/** A square window and the distance from one to the next, in pixels. */
export interface AveragePool {
  /** Pixels of a window along each axis. */
  readonly size: number;
  /** Pixels from one window to the next. */
  readonly stride: number;
}

/**
 * x [N, H, W, C] to [N, H', W', C]; H' counts the windows that start inside: 1 + ceil((H − size) / stride) as a rule.
 */
export const averagePool = (x: Tensor, attributes: AveragePool): Tensor => averagePoolOp([x], attributes);

const averagePoolOp = defineOp<AveragePool>("averagePool", {
  shape: ([x], { size, stride }) => {
    requireWhole("averagePool", { size, stride }, 1, x.shape);
    if (x.shape.length !== 4) return shapeError("averagePool", "[N, H, W, C]", x.shape);
    const pooled = (length: number) =>
      Math.min(Math.max(Math.ceil((length - size) / stride), 0) + 1, Math.ceil(length / stride));
    return [x.shape[0], pooled(x.shape[1]), pooled(x.shape[2]), x.shape[3]];
  },
  slices: imageSlices([0]),
  kernels: ({ inputs: [x], output, attributes }) => {
    const { bind, width, alias } = vectorized(x.shape[3]);
    return [kernel({
      label: "averagePool",
      reads: { x: bind(x) },
      writes: { y: bind(output) },
      sizes: sizesOf(x.shape, output.shape, width),
      threads: sizeOf(output.shape) / width,
      functions: `${alias}\n${constants(attributes)}`,
      main: /* wgsl */ `
  let c = id % p.lanes;
  let j = id / p.lanes % p.columns;
  let i = id / p.lanes / p.columns % p.rows;
  let n = id / p.lanes / p.columns / p.rows;
  let bottom = min(i * STRIDE + SIZE, p.height);
  let right = min(j * STRIDE + SIZE, p.width);
  var sum = T(0.0);
  for (var h = i * STRIDE; h < bottom; h++) {
    for (var w = j * STRIDE; w < right; w++) { sum += x[((n * p.height + h) * p.width + w) * p.lanes + c]; }
  }
  y[id] = sum / T(f32((bottom - i * STRIDE) * (right - j * STRIDE)));`,
    })];
  },
  backward: ({ inputs: [x], gradient, attributes }) => [averagePoolGradient([x, gradient], attributes)],
});

/** x [N, H, W, C] (only its shape) and the gradient of y [N, H', W', C] to the gradient of x. */
const averagePoolGradient = defineOp<AveragePool>("averagePoolGradient", {
  shape: ([x]) => x.shape,
  slices: imageSlices([0, 1]),
  kernels: ({ inputs: [, gradient], output, attributes }) => {
    const { bind, width, alias } = vectorized(output.shape[3]);
    return [kernel({
      label: "averagePoolGradient",
      reads: { gradient: bind(gradient) },
      writes: { dx: bind(output) },
      sizes: sizesOf(output.shape, gradient.shape, width),
      threads: sizeOf(output.shape) / width,
      functions: `${alias}\n${constants(attributes)}`,
      main: /* wgsl */ `
  let c = id % p.lanes;
  let w = id / p.lanes % p.width;
  let h = id / p.lanes / p.width % p.height;
  let n = id / p.lanes / p.width / p.height;
  var sum = T(0.0);
  // Windows i with i · STRIDE ≤ h < i · STRIDE + SIZE.
  for (var i = (max(h + STRIDE, SIZE) - SIZE) / STRIDE; i < min(h / STRIDE + 1u, p.rows); i++) {
    for (var j = (max(w + STRIDE, SIZE) - SIZE) / STRIDE; j < min(w / STRIDE + 1u, p.columns); j++) {
      let inside = (min(i * STRIDE + SIZE, p.height) - i * STRIDE) * (min(j * STRIDE + SIZE, p.width) - j * STRIDE);
      sum += gradient[((n * p.rows + i) * p.columns + j) * p.lanes + c] / T(f32(inside));
    }
  }
  dx[id] = sum;`,
    })];
  },
});

const constants = ({ size, stride }: AveragePool) => `const SIZE = ${size}u; const STRIDE = ${stride}u;`;

const sizesOf = ([, height, width, C]: Shape, [, rows, columns]: Shape, vector: number) => ({
  height,
  width,
  rows,
  columns,
  lanes: C / vector,
});
