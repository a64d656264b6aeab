/**
 * Bilinear resizing of maps, as PyTorch's `interpolate` without smoothing.
 *
 *     y[n,i,j,c] = Σ over the two cells on either side, along both axes, of share · x[n,·,·,c]
 */
import { sizeOf } from "./graph/shape.ts";
import { defineOp, imageSlices, type Tensor } from "./graph/tensor.ts";
import { bilinearFunctions, requireResizing, type Resizing } from "./kernels/bilinear.ts";
import { vectorized } from "./kernels/vectorized.ts";
import { kernel } from "./kernels/wgsl.ts";

/** x [N, h, w, C] to [N, height, width, C]. Throws ShapeError where these are no sizes of maps. */
export const resizeBilinear = (x: Tensor, resizing: Resizing): Tensor => resizeOp([x], resizing);

const resizeOp = defineOp<Resizing>("resizeBilinear", {
  shape: ([x], resizing) => {
    requireResizing("resizeBilinear", x.shape, resizing);
    return [x.shape[0], resizing.height, resizing.width, x.shape[3]];
  },
  slices: imageSlices([0]),
  kernels: ({ inputs: [x], output, attributes: { height, width, alignCorners } }) => {
    const [, rows, columns, C] = x.shape;
    const { bind, width: vector, alias } = vectorized(C);
    return [kernel({
      label: "resizeBilinear",
      reads: { x: bind(x) },
      writes: { y: bind(output) },
      sizes: { rows, columns, height, width, lanes: C / vector },
      threads: sizeOf(output.shape) / vector,
      functions: alias + bilinearFunctions(alignCorners),
      main: /* wgsl */ `
  let c = id % p.lanes;
  let across = between(id / p.lanes % p.width, p.width, p.columns);
  let down = between(id / p.lanes / p.width % p.height, p.height, p.rows);
  let first = id / p.lanes / p.width / p.height * p.rows;
  let top = (first + down.low) * p.columns;
  let bottom = (first + down.high) * p.columns;
  let above = mix(x[(top + across.low) * p.lanes + c], x[(top + across.high) * p.lanes + c], T(across.share));
  let below = mix(x[(bottom + across.low) * p.lanes + c], x[(bottom + across.high) * p.lanes + c], T(across.share));
  y[id] = mix(above, below, T(down.share));`,
    })];
  },
  backward: ({ inputs: [x], gradient, attributes }) => [resizeGradient([x, gradient], attributes)],
});

/** x [N, h, w, C] (only its shape) and the gradient of y to the gradient of x: gathered from the pixels around a cell. */
const resizeGradient = defineOp<Resizing>("resizeBilinearGradient", {
  shape: ([x]) => x.shape,
  slices: imageSlices([0, 1]),
  kernels: ({ inputs: [, gradient], output, attributes: { height, width, alignCorners } }) => {
    const [, rows, columns, C] = output.shape;
    const { bind, width: vector, alias } = vectorized(C);
    return [kernel({
      label: "resizeBilinearGradient",
      reads: { gradient: bind(gradient) },
      writes: { dx: bind(output) },
      sizes: { rows, columns, height, width, lanes: C / vector },
      threads: sizeOf(output.shape) / vector,
      functions: `${alias}${bilinearFunctions(alignCorners)}
fn weightOn(cell: u32, pixel: u32, pixels: u32, cells: u32) -> f32 {
  let at = between(pixel, pixels, cells);
  return select(0.0, 1.0 - at.share, at.low == cell) + select(0.0, at.share, at.high == cell);
}`,
      main: /* wgsl */ `
  let c = id % p.lanes;
  let column = id / p.lanes % p.columns;
  let row = id / p.lanes / p.columns % p.rows;
  let first = id / p.lanes / p.columns / p.rows * p.height;
  let right = firstAt(column + 1u, p.width, p.columns);
  let bottom = firstAt(row + 1u, p.height, p.rows);
  var sum = T(0.0);
  for (var i = firstAt(max(row, 1u) - 1u, p.height, p.rows); i < bottom; i++) {
    var across = T(0.0);
    for (var j = firstAt(max(column, 1u) - 1u, p.width, p.columns); j < right; j++) {
      across += weightOn(column, j, p.width, p.columns) * gradient[((first + i) * p.width + j) * p.lanes + c];
    }
    sum += weightOn(row, i, p.height, p.rows) * across;
  }
  dx[id] = sum;`,
    })];
  },
});
