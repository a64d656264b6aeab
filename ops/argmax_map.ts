/** The arg-max over channels of resized maps. The resized maps, K times the image, are never stored. */
import { sizeOf } from "./graph/shape.ts";
import { defineOp, imageSlices, type Tensor } from "./graph/tensor.ts";
import { bilinearFunctions, requireResizing, type Resizing } from "./kernels/bilinear.ts";
import { kernel } from "./kernels/wgsl.ts";

/** The size of resized maps, in pixels. */
export interface MapSize {
  /** Pixels. */
  readonly height: number;
  /** Pixels. */
  readonly width: number;
  /** As in `Resizing`; false if not given. */
  readonly alignCorners?: boolean;
}

/**
 * scores [N, h, w, K] to u32 [N, height, width]: the arg-max over K (the first of equals) once every map is resized
 * bilinearly to height × width, without smoothing. Throws ShapeError where these are no sizes of maps. No gradient.
 */
export const argmaxMap = (scores: Tensor, size: MapSize): Tensor =>
  argmaxMapOp([scores], { alignCorners: false, ...size });

const argmaxMapOp = defineOp<Resizing>("winnerMap", {
  dtype: "u32",
  shape: ([scores], resizing) => {
    requireResizing("winnerMap", scores.shape, resizing);
    return [scores.shape[0], resizing.height, resizing.width];
  },
  slices: imageSlices([0]),
  kernels: ({ inputs: [scores], output, attributes: { alignCorners } }) => {
    const [, rows, columns, K] = scores.shape;
    const [, height, width] = output.shape;
    return [kernel({
      label: "winnerMap",
      reads: { scores },
      writes: { best: output },
      sizes: { rows, columns, K, height, width },
      threads: sizeOf(output.shape),
      functions: bilinearFunctions(alignCorners),
      main: /* wgsl */ `
  let down = between(id / p.width % p.height, p.height, p.rows);
  let across = between(id % p.width, p.width, p.columns);
  let first = id / p.width / p.height * p.rows;
  let top = (first + down.low) * p.columns;
  let bottom = (first + down.high) * p.columns;
  let corners = p.K * vec4(top + across.low, top + across.high, bottom + across.low, bottom + across.high);
  var most = -3.4028234e38;
  var winner = 0u;
  for (var k = 0u; k < p.K; k++) {
    let above = mix(scores[corners.x + k], scores[corners.y + k], across.share);
    let below = mix(scores[corners.z + k], scores[corners.w + k], across.share);
    let score = mix(above, below, down.share);
    if (score > most) { most = score; winner = k; }
  }
  best[id] = winner;`,
    })];
  },
});
