/** Normalisation of 8-bit images, in the arithmetic of PyTorch or of OpenCV. */
import { sameShape, shapeError } from "../graph/shape.ts";
import { constant, defineOp, type Tensor } from "../graph/tensor.ts";
import { kernel } from "../kernels/wgsl.ts";
import { pixelFunctions } from "./_pixel.ts";

/** Mean and standard deviation of red, green and blue, of the values that they are applied to. */
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
  const f = Math.fround;
  return normalizeOp([
    images,
    tableOf((value, channel) => f(f(value / 255) - f(mean[channel])) / f(std[channel])),
  ]);
};

/**
 * The input of a network from 8-bit images whose values are not scaled: (v − mean) / std, rounded as OpenCV does, to f32
 * after the difference and after its product with the reciprocal of std in double precision. With `sizes`, height and
 * width of each image's content, it is 0 right of and below that.
 *
 * images: u32 [N, H, W]; sizes: u32 [N, 2]. Result: f32 [N, H, W, 3]. Throws ShapeError where these do not fit.
 */
export const normalizeBytes = (
  images: Tensor,
  { mean, std }: PixelStatistics,
  sizes?: Tensor,
): Tensor => {
  const f = Math.fround;
  const table = tableOf((value, channel) => f(value - f(mean[channel])) * (1 / f(std[channel])));
  return normalizeOp(sizes === undefined ? [images, table] : [images, table, sizes]);
};

/** A table [256, 3] of all values, since a device's division may be less exact than the host's. */
const tableOf = (normalized: (value: number, channel: number) => number): Tensor =>
  constant(
    Float32Array.from({ length: 3 * 256 }, (_, i) => normalized(Math.floor(i / 3), i % 3)),
    [256, 3],
  );

const normalizeOp = defineOp("normalizePixels", {
  takes: ["u32", "f32", "u32"],
  shape: ([images, , sizes]) =>
    images.shape.length === 3 && (sizes === undefined || sameShape(sizes.shape, [images.shape[0], 2]))
      ? [...images.shape, 3]
      : shapeError(
        "normalizePixels",
        "images [N, H, W] and sizes [N, 2]",
        ...[images, ...sizes === undefined ? [] : [sizes]].map(({ shape }) => shape),
      ),
  slices: ([images, , sizes]) =>
    sizes === undefined ? { along: [0], output: "rows" } : images.shape[0] === 1
      ? null // the sizes have other rows then
      : { along: [0, 2], output: "rows" },
  kernels: ({ inputs: [images, table, sizes], output }) => {
    const [count, height, width] = images.shape;
    return [kernel({
      label: "normalizePixels",
      reads: { pictures: images, table, ...sizes === undefined ? {} : { sizes } },
      writes: { normalized: output },
      sizes: { height, width },
      threads: count * width,
      functions: pixelFunctions,
      // One invocation per column.
      main: /* wgsl */ `
  let image = id / p.width;
  let x = id % p.width;
  for (var y = 0u; y < p.height; y++) {
    let at = (image * p.height + y) * p.width + x;
    let rgb = unpack(pictures[at]);
    let inside = ${sizes === undefined ? "true" : "y < sizes[2u * image] && x < sizes[2u * image + 1u]"};
    for (var channel = 0u; channel < 3u; channel++) {
      normalized[3u * at + channel] = select(0.0, table[3u * rgb[channel] + channel], inside);
    }
  }`,
    })];
  },
});
