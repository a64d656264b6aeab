/**
 * RoIAlign (He et al., Mask R-CNN, 2017) of one box per map, as torchvision's `roi_align` with `aligned=True`, the
 * automatic sampling ratio and an output as large as the map; then mirrored left to right where `flips` is 1.
 *
 * It is linear in the map and separates into rows and columns: y[n] = A[n] · x[n] with x[n] as [H·W, C] and
 *
 *     A[n, (i, j), (h, w)] = a(i, h) · a(j, w)
 *     a(i, h) = mean over the samples s of bin i of tent(s − h)
 *
 * where tent(t) = max(1 − |t|, 0). A sample up to one pixel outside the map is moved to its border; samples further out
 * contribute 0. A bin has ⌈box size / map size⌉ samples along an axis: one for boxes within the map, none for a box
 * whose size is not positive, which gives zeros.
 */
import { shapeError } from "./graph/shape.ts";
import { defineOp, reshape, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";
import { matmul } from "./matmul.ts";

/** The size of a feature map, in cells. */
export interface MapSize {
  /** Cells. */
  readonly height: number;
  /** Cells. */
  readonly width: number;
}

/** Boxes [N, 4] as fractions x1, y1, x2, y2 of the map, and flips [N] (1 or 0), to A [N, H·W, H·W]. No gradient. */
export const roiAlignWeights = (boxes: Tensor, flips: Tensor, map: MapSize): Tensor =>
  weightsOp([boxes, flips], map);

/**
 * x [N, H, W, C], boxes [N, 4] as fractions x1, y1, x2, y2 of the map, and flips [N] (1 or 0) to [N, H, W, C]. The
 * gradient flows to x only. Throws ShapeError where sizes do not fit.
 */
export const roiAlign = (x: Tensor, boxes: Tensor, flips: Tensor): Tensor => {
  if (x.shape.length !== 4) shapeError("roiAlign", "x [N, H, W, C]", x.shape);
  const [N, height, width, C] = x.shape;
  const weights = roiAlignWeights(boxes, flips, { height, width });
  return reshape(matmul(weights, reshape(x, [N, height * width, C])), x.shape);
};

const weightsOp = defineOp<MapSize>("roiAlignWeights", {
  shape: ([boxes, flips], { height, width }) =>
    boxes.shape.length === 2 && boxes.shape[1] === 4 && flips.shape.length === 1 &&
      flips.shape[0] === boxes.shape[0]
      ? [boxes.shape[0], height * width, height * width]
      : shapeError("roiAlign", "boxes [N, 4] and flips [N]", boxes.shape, flips.shape),
  kernels: ({ inputs: [boxes, flips], output, attributes: { height, width } }) => [kernel({
    label: "roiAlignWeights",
    reads: { boxes, flips },
    writes: { weights: output },
    sizes: { height, width },
    threads: boxes.shape[0] * height * width,
    functions: SHARE,
    main: /* wgsl */ `
  let column = id % p.width;
  let i = id / p.width % p.height;
  let n = id / p.width / p.height;
  let j = select(column, p.width - 1u - column, flips[n] != 0.0);
  for (var h = 0u; h < p.height; h++) {
    let row = share(i, h, boxes[n * 4u + 1u], boxes[n * 4u + 3u], p.height);
    for (var w = 0u; w < p.width; w++) {
      weights[(id * p.height + h) * p.width + w] = row * share(j, w, boxes[n * 4u], boxes[n * 4u + 2u], p.width);
    }
  }`,
  })],
});

/** WGSL: a(bin, cell) along an axis of `cells` for a box from `low` to `high`, in fractions of the axis. */
const SHARE = /* wgsl */ `
fn share(bin: u32, cell: u32, low: f32, high: f32, cells: u32) -> f32 {
  let size = f32(cells);
  let start = low * size - 0.5; // pixel centres lie at whole numbers
  let bin_size = (high * size - 0.5 - start) / size;
  let samples = i32(ceil(bin_size));
  var sum = 0.0;
  for (var s = 0; s < samples; s++) {
    let at = start + (f32(bin) + (f32(s) + 0.5) / f32(samples)) * bin_size;
    let nearest = clamp(at, 0.0, size - 1.0);
    sum += select(0.0, max(1.0 - abs(nearest - f32(cell)), 0.0), at >= -1.0 && at <= size);
  }
  return sum / f32(max(samples, 1));
}`;
