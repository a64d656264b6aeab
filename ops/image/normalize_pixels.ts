import { kernel } from "../kernel.ts";
import { defineOp, type Tensor } from "../tensor.ts";
import { pixelFunctions } from "./_pixel.ts";

/** Red, green and blue, as fractions of full brightness. */
export interface PixelStatistics {
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

/**
 * 8-bit pictures to the numbers that a network takes: (v / 255 − mean) / std.
 *
 * pictures: u32 [N, H, W]. Result: f32 [N, H, W, 3].
 */
export const normalizePixels = (pictures: Tensor, statistics: PixelStatistics): Tensor =>
  normalizePixelsOp([pictures], statistics);

const normalizePixelsOp = defineOp<PixelStatistics>("normalizePixels", {
  shape: ([pictures]) => [...pictures.shape, 3],
  kernels: ({ inputs: [pictures], output, attributes: { mean, std } }) => {
    const [count, height, width] = pictures.shape;
    const vector = (values: readonly number[]) => `vec3<f32>(${values.join(", ")})`;
    return [kernel({
      label: "normalizePixels",
      reads: { pictures },
      writes: { normalized: output },
      sizes: { height, width },
      threads: count * width,
      functions: /* wgsl */ `${pixelFunctions}
const SCALE = ${vector(std.map((s) => 1 / (255 * s)))};
const OFFSET = ${vector(mean.map((m, i) => m / std[i]))};`,
      // One lane a column.
      main: /* wgsl */ `
  let first = id / p.width * p.height * p.width + id % p.width;
  for (var y = 0u; y < p.height; y++) {
    let at = first + y * p.width;
    let value = vec3<f32>(unpack(pictures[at])) * SCALE - OFFSET;
    normalized[3u * at] = value.r;
    normalized[3u * at + 1u] = value.g;
    normalized[3u * at + 2u] = value.b;
  }`,
    })];
  },
});
