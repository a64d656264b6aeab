/**
 * Score maps of overlapping windows of an image, enlarged to the windows and averaged over those that cover a pixel.
 * One window that covers the image is plain enlarging.
 */
import { requireWhole, shapeError, sizeOf } from "./graph/shape.ts";
import { constant, defineOp, type Tensor } from "./graph/tensor.ts";
import { bilinearFunctions, requireResizing } from "./kernels/bilinear.ts";
import { vectorized } from "./kernels/vectorized.ts";
import { kernel } from "./kernels/wgsl.ts";

/** Where windows lie in an image, all sizes in pixels. */
export interface Windows {
  /** Top and left of each window. */
  readonly origins: readonly (readonly [top: number, left: number])[];
  /** Height of a window. */
  readonly windowHeight: number;
  /** Width of a window. */
  readonly windowWidth: number;
  /** Height of the image. */
  readonly height: number;
  /** Width of the image. */
  readonly width: number;
  /** As in `Resizing`, when maps are enlarged to their windows. */
  readonly alignCorners: boolean;
}

/**
 * Score maps of n windows [n, h, w, K] to the means [1, height, width, K]; NaN where no window covers a pixel. Throws
 * ShapeError unless there is a window for each map, within the image. No gradient.
 */
export const averageWindows = (maps: Tensor, windows: Windows): Tensor =>
  averageOp([maps, constant(Uint32Array.from(windows.origins.flat()))], windows);

const averageOp = defineOp<Windows>("averageWindows", {
  takes: ["f32", "u32"],
  shape: ([{ shape }], { origins, windowHeight, windowWidth, height, width }) => {
    const op = "averageWindows";
    requireResizing(op, shape, { height: windowHeight, width: windowWidth });
    requireWhole(op, { height, width }, 1, shape);
    if (shape[0] !== origins.length) shapeError(op, `as many maps as windows, ${origins.length}`, shape);
    for (const [top, left] of origins) {
      requireWhole(op, { top, left }, 0, shape);
      if (top + windowHeight <= height && left + windowWidth <= width) continue;
      shapeError(op, `windows within ${height} × ${width}, not one at ${top}, ${left}`, shape);
    }
    return [1, height, width, shape[3]];
  },
  kernels: ({ inputs: [maps, origins], output, attributes }) => {
    const { windowHeight, windowWidth, width, alignCorners } = attributes;
    const [count, rows, columns, K] = maps.shape;
    const { bind, width: vector, alias } = vectorized(K);
    return [kernel({
      label: "averageWindows",
      reads: { maps: bind(maps), origins },
      writes: { mean: bind(output) },
      sizes: { count, rows, columns, lanes: K / vector, windowHeight, windowWidth, width },
      threads: sizeOf(output.shape) / vector,
      functions: alias + bilinearFunctions(alignCorners),
      main: /* wgsl */ `
  let k = id % p.lanes;
  var sum = T(0.0);
  var covering = 0.0;
  for (var n = 0u; n < p.count; n++) {
    let i = id / p.lanes / p.width - origins[2u * n]; // wraps round to a large number above the window
    let j = id / p.lanes % p.width - origins[2u * n + 1u];
    if (i >= p.windowHeight || j >= p.windowWidth) { continue; }
    let down = between(i, p.windowHeight, p.rows);
    let across = between(j, p.windowWidth, p.columns);
    let top = (n * p.rows + down.low) * p.columns;
    let bottom = (n * p.rows + down.high) * p.columns;
    let above = mix(maps[(top + across.low) * p.lanes + k], maps[(top + across.high) * p.lanes + k], T(across.share));
    let below =
      mix(maps[(bottom + across.low) * p.lanes + k], maps[(bottom + across.high) * p.lanes + k], T(across.share));
    sum += mix(above, below, T(down.share));
    covering += 1.0;
  }
  mean[id] = sum / T(covering);`,
    })];
  },
});
