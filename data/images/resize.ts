/**
 * Resizing as OpenCV does it to bytes: bilinear without smoothing for images (`cv2.resize`, INTER_LINEAR), nearest for
 * label maps (INTER_NEAREST), to the bit. Only the box of the result that is wanted is computed.
 */
import type { Picture } from "./picture.ts";
import type { Box } from "./resample.ts";
import { roundHalfEven } from "./round_half_even.ts";

/** A size in pixels. */
export interface Size {
  /** Pixels in a row. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
}

/** The whole of an image of that size. */
export const wholeBox = ({ width, height }: Size): Box => [0, 0, height, width];

/** The box [top, left, height, width] of what an image is at the size `to`. */
export const resizeBilinear = (image: Picture, to: Size, box: Box = wholeBox(to)): Picture => {
  const [top, left, height, width] = box;
  const rgb = new Uint8Array(3 * width * height);
  if (image.width === to.width && image.height === to.height) {
    for (let y = 0; y < height; y++) {
      const at = 3 * ((top + y) * image.width + left);
      rgb.set(image.rgb.subarray(at, at + 3 * width), 3 * width * y);
    }
  } else if (image.width === 2 * to.width && image.height === 2 * to.height) {
    halve(image, box, rgb);
  } else {
    interpolate(image, to, box, rgb);
  }
  return { width, height, rgb };
};

/** Binary digits of weights behind the point. */
const WEIGHT_BITS = 11;
const ONE = 1 << WEIGHT_BITS;

/** Means of 2 × 2 pixels: what OpenCV makes of an image that is exactly twice the size. */
const halve = (image: Picture, [top, left, height, width]: Box, rgb: Uint8Array): void => {
  const source = image.rgb, stride = 3 * image.width;
  for (let y = 0, to = 0; y < height; y++) {
    let upper = 2 * (top + y) * stride + 6 * left;
    for (let x = 0; x < width; x++, upper += 6) {
      for (let c = 0; c < 3; c++, to++) {
        const at = upper + c, below = at + stride;
        rgb[to] = (source[at] + source[at + 3] + source[below] + source[below + 3] + 2) >> 2;
      }
    }
  }
};

const interpolate = (image: Picture, to: Size, [top, left, height, width]: Box, rgb: Uint8Array): void => {
  const columns = weightsOf(image.width, to.width, left, width, true);
  const rows = weightsOf(image.height, to.height, top, height, false);
  const last = image.height - 1;
  // The two rows between which the result is, after the horizontal pass; and which rows of the image these are.
  let upper = new Int32Array(3 * width), lower = new Int32Array(3 * width);
  let upperRow = -1, lowerRow = -1;
  for (let y = 0; y < height; y++) {
    const above = clamp(rows.first[y], 0, last), below = clamp(rows.first[y] + 1, 0, last);
    if (above !== upperRow) {
      if (above === lowerRow) {
        [upper, lower] = [lower, upper];
        lowerRow = -1;
      } else stretchRow(image, above, columns, upper);
      upperRow = above;
    }
    if (below !== lowerRow) {
      if (below === upperRow) lower.set(upper);
      else stretchRow(image, below, columns, lower);
      lowerRow = below;
    }
    const a = rows.near[y], b = rows.far[y], start = 3 * width * y;
    for (let i = 0; i < upper.length; i++) {
      rgb[start + i] = (((a * upper[i]) >> 16) + ((b * lower[i]) >> 16) + 2) >> 2;
    }
  }
};

/** A row of the image at another width: weighted sums of neighbours with 7 binary digits behind the point. */
const stretchRow = (
  { rgb, width }: Picture,
  row: number,
  { first, near, far }: Weights,
  to: Int32Array,
): void => {
  const start = 3 * row * width, last = width - 1;
  for (let x = 0, i = 0; x < first.length; x++, i += 3) {
    const k = first[x], a = near[x], b = far[x];
    const at = start + 3 * k, next = k < last ? at + 3 : at;
    to[i] = (a * rgb[at] + b * rgb[next]) >> 4;
    to[i + 1] = (a * rgb[at + 1] + b * rgb[next + 1]) >> 4;
    to[i + 2] = (a * rgb[at + 2] + b * rgb[next + 2]) >> 4;
  }
};

/** For each output of an axis: the first of two neighbours, and the weights of both. */
interface Weights {
  readonly first: Int32Array;
  readonly near: Int32Array;
  readonly far: Int32Array;
}

/** `count` outputs from `begin` on, of an axis of `length` pixels that becomes one of `size`. */
const weightsOf = (length: number, size: number, begin: number, count: number, inside: boolean): Weights => {
  const first = new Int32Array(count), near = new Int32Array(count), far = new Int32Array(count);
  const scale = 1 / (size / length);
  for (let i = 0; i < count; i++) {
    const position = Math.fround((begin + i + 0.5) * scale - 0.5);
    let k = Math.floor(position);
    let t = Math.fround(position - k);
    if (inside && (k < 0 || k >= length - 1)) [k, t] = [k < 0 ? 0 : length - 1, 0];
    first[i] = k;
    near[i] = roundHalfEven(Math.fround(1 - t) * ONE);
    far[i] = roundHalfEven(t * ONE);
  }
  return { first, near, far };
};

const clamp = (value: number, low: number, high: number) => value < low ? low : value > high ? high : value;

/** The box [top, left, height, width] of what a map of labels, [H, W], is at the size `to`. */
export const resizeNearest = (
  labels: Uint8Array,
  from: Size,
  to: Size,
  box: Box = wholeBox(to),
): Uint8Array<ArrayBuffer> => {
  const [top, left, height, width] = box;
  const columns = nearestOf(from.width, to.width, left, width);
  const rows = nearestOf(from.height, to.height, top, height);
  const resized = new Uint8Array(width * height);
  for (let y = 0, i = 0; y < height; y++) {
    const start = rows[y] * from.width;
    for (let x = 0; x < width; x++) resized[i++] = labels[start + columns[x]];
  }
  return resized;
};

const nearestOf = (length: number, size: number, begin: number, count: number): Int32Array => {
  const scale = 1 / (size / length);
  return Int32Array.from(
    { length: count },
    (_, i) => Math.min(Math.floor((begin + i) * scale), length - 1),
  );
};
