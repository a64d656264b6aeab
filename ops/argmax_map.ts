/** The arg-max over channels of enlarged maps. The enlarged maps, K times the image, are never stored. */
import { shapeError } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";

/** The size of enlarged maps, in pixels. */
export interface MapSize {
  /** Pixels. */
  readonly height: number;
  /** Pixels. */
  readonly width: number;
}

/**
 * scores [N, h, w, K] to u32 [N, height, width]: the arg-max over K (the first of equals) once every map is resized
 * bilinearly to height × width, pixel centres aligned (PyTorch's `align_corners=False`, no smoothing). No gradient.
 */
export const argmaxMap = (scores: Tensor, size: MapSize): Tensor => argmaxMapOp([scores], size);

const argmaxMapOp = defineOp<MapSize>("winnerMap", {
  dtype: "u32",
  shape: ([scores], { height, width }) =>
    scores.shape.length === 4
      ? [scores.shape[0], height, width]
      : shapeError("winnerMap", "scores [N, h, w, K]", scores.shape),
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [scores], output }) => {
    const [, rows, columns, K] = scores.shape;
    const [N, height, width] = output.shape;
    return [kernel({
      label: "winnerMap",
      reads: { scores },
      writes: { best: output },
      sizes: { rows, columns, K, height, width },
      threads: N * height * width,
      functions: /* wgsl */ `
struct Between { low: u32, high: u32, share: f32 }
// The cells on either side of a pixel's centre, and how far it lies on the way from one to the other.
fn between(pixel: u32, pixels: u32, cells: u32) -> Between {
  let at = clamp((f32(pixel) + 0.5) * f32(cells) / f32(pixels) - 0.5, 0.0, f32(cells - 1u));
  let low = u32(at);
  return Between(low, min(low + 1u, cells - 1u), at - f32(low));
}`,
      main: /* wgsl */ `
  let y = between(id / p.width % p.height, p.height, p.rows);
  let x = between(id % p.width, p.width, p.columns);
  let picture = id / p.width / p.height * p.rows;
  let top = (picture + y.low) * p.columns;
  let bottom = (picture + y.high) * p.columns;
  let corners = p.K * vec4(top + x.low, top + x.high, bottom + x.low, bottom + x.high);
  let weights = vec4((1.0 - y.share) * vec2(1.0 - x.share, x.share), y.share * vec2(1.0 - x.share, x.share));
  var most = -3.4028234e38;
  var winner = 0u;
  for (var k = 0u; k < p.K; k++) {
    let around = vec4(scores[corners.x + k], scores[corners.y + k], scores[corners.z + k], scores[corners.w + k]);
    let score = dot(weights, around);
    if (score > most) { most = score; winner = k; }
  }
  best[id] = winner;`,
    })];
  },
});
