/** Random resized crops and horizontal flips. */
import { shapeError } from "../graph/shape.ts";
import { defineOp, type Tensor } from "../graph/tensor.ts";
import { kernel } from "../kernels/wgsl.ts";
import { pixelFunctions } from "./_pixel.ts";
import { AUGMENTATION_ROW, type AugmentationRowSize, augmentationRowWords } from "./augmentation_row.ts";

/**
 * Crops the box of each view from its image, resizes it by Pillow's antialiased bicubic filter, bit for bit (columns,
 * then rows, each rounded to 8 bits), and mirrors it where the view's row says so.
 *
 * pixels: RGB bytes of all images, u32 [words]; views: u32 [N, augmentationRowWords(size)], whose tap weights are whole
 * numbers in units of 2^-weightBits. Result: images, u32 [N, S, S]. Throws ShapeError where the table has another size.
 */
export const cropResize = (
  pixels: Tensor,
  views: Tensor,
  size: AugmentationRowSize & { readonly weightBits: number },
): Tensor => cropResizeOp([pixels, views], size);

const cropResizeOp = defineOp<AugmentationRowSize & { readonly weightBits: number }>("cropResize", {
  takes: ["u32", "u32"],
  shape: ([, views], size) =>
    views.shape.length === 2 && views.shape[1] === augmentationRowWords(size)
      ? [views.shape[0], size.imageSize, size.imageSize]
      : shapeError("cropResize", `a view table [N, ${augmentationRowWords(size)}]`, views.shape),
  dtype: "u32",
  kernels: ({ inputs: [pixels, views], output, attributes: { imageSize, maxTaps, weightBits } }) => {
    const [count, words] = views.shape;
    const strips = Math.ceil(imageSize / STRIP);
    const rows = 2 ** Math.ceil(Math.log2(maxTaps));
    return [kernel({
      label: "cropResize",
      reads: { pixels, views },
      writes: { pictures: output },
      sizes: { size: imageSize, strips, words, taps: 2 + maxTaps },
      threads: count * strips * imageSize,
      functions: /* wgsl */ `
${pixelFunctions}
const HALF = ${1 << (weightBits - 1)};
fn weighted(pixel: u32, weight: u32) -> vec3<i32> { return vec3<i32>(unpack(pixel)) * bitcast<i32>(weight); }
fn rounded(sum: vec3<i32>) -> u32 {
  return pack(vec3<u32>(clamp(sum >> vec3(${weightBits}u), vec3(0), vec3(255))));
}
// A pixel's three bytes begin anywhere in a word.
fn source(byte: u32) -> u32 {
  let word = byte / 4u;
  let shift = byte % 4u * 8u;
  return (pixels[word] >> shift) | ((pixels[word + 1u] << (31u - shift)) << 1u);
}`,
      // An invocation computes a strip of a column. It resizes each row that it needs once, and keeps it for the next.
      main: /* wgsl */ `
  let column = id % p.size;
  let strip = id / p.size % p.strips;
  let view = id / (p.size * p.strips);
  let table = view * p.words;
  let across = table + ${AUGMENTATION_ROW.taps}u + column * p.taps;
  let down = table + ${AUGMENTATION_ROW.taps}u + p.size * p.taps;
  let start = views[table + ${AUGMENTATION_ROW.start}u] + 3u * views[across];
  let count = views[across + 1u];
  let stride = views[table + ${AUGMENTATION_ROW.stride}u];
  let x = select(column, p.size - 1u - column, views[table + ${AUGMENTATION_ROW.flip}u] == 1u);

  let first = strip * ${STRIP}u;
  var resized: array<u32, ${rows}>; // row r at r % ${rows}
  var next = views[down + first * p.taps];
  for (var y = first; y < min(first + ${STRIP}u, p.size); y++) {
    let taps = down + y * p.taps;
    let top = views[taps];
    let bottom = top + views[taps + 1u];
    for (; next < bottom; next++) {
      var sum = vec3(HALF);
      for (var tap = 0u; tap < count; tap++) {
        sum += weighted(source(start + next * stride + 3u * tap), views[across + 2u + tap]);
      }
      resized[next % ${rows}u] = rounded(sum);
    }
    var sum = vec3(HALF);
    for (var r = top; r < bottom; r++) {
      sum += weighted(resized[r % ${rows}u], views[taps + 2u + r - top]);
    }
    pictures[(view * p.size + y) * p.size + x] = rounded(sum);
  }`,
    })];
  },
});

/** Rows of the result that one invocation computes. */
const STRIP = 32;
