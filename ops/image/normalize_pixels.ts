/** Normalisation of 8-bit images. */
import { constant, defineOp, type Tensor } from "../graph/tensor.ts";
import { kernel } from "../kernels/wgsl.ts";
import { pixelFunctions } from "./_pixel.ts";

/** Mean and standard deviation of red, green and blue, as fractions of full brightness. */
export interface PixelStatistics {
  /** Red, green, blue. */
  readonly mean: readonly [number, number, number];
  /** Red, green, blue. */
  readonly std: readonly [number, number, number];
}

/**
 * The input of a network from 8-bit images: (v / 255 − mean) / std, each step rounded to f32 as PyTorch does.
 *
 * images: u32 [N, H, W]. Result: f32 [N, H, W, 3].
 */
export const normalizePixels = (images: Tensor, { mean, std }: PixelStatistics): Tensor => {
  // A table of all 256 values, since a device's division may be less exact than the host's.
  const f = Math.fround;
  const table = Float32Array.from({ length: 3 * 256 }, (_, i) => {
    const channel = i % 3;
    return f(f((i - channel) / 3 / 255) - f(mean[channel])) / f(std[channel]);
  });
  return normalizePixelsOp([images, constant(table, [256, 3])]);
};

const normalizePixelsOp = defineOp("normalizePixels", {
  takes: ["u32"],
  shape: ([images]) => [...images.shape, 3],
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [images, table], output }) => {
    const [count, height, width] = images.shape;
    return [kernel({
      label: "normalizePixels",
      reads: { pictures: images, table },
      writes: { normalized: output },
      sizes: { height, width },
      threads: count * width,
      functions: pixelFunctions,
      // One invocation per column.
      main: /* wgsl */ `
  let first = id / p.width * p.height * p.width + id % p.width;
  for (var y = 0u; y < p.height; y++) {
    let at = first + y * p.width;
    let rgb = unpack(pictures[at]);
    for (var channel = 0u; channel < 3u; channel++) {
      normalized[3u * at + channel] = table[3u * rgb[channel] + channel];
    }
  }`,
    })];
  },
});
