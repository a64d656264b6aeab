/**
 * Pillow's antialiased bicubic resampling, bit for bit.
 *
 * Each axis is one pass. Output o of a pass over n pixels lies at c = (o + 1/2) · n/size and is a weighted mean of the
 * pixels x around it, with weights
 *
 *     w(t) = 1.5|t|³ − 2.5|t|² + 1             |t| ≤ 1        t = (x + 1/2 − c) / max(1, n/size)
 *          = −0.5|t|³ + 2.5|t|² − 4|t| + 2     |t| ≤ 2
 *
 * divided by their sum and rounded to 22 binary digits. Both passes, first along rows, then along columns, round their
 * sums to 8 bits.
 */
import type { Picture } from "./decode_image.ts";
import type { Box } from "./draws.ts";

/** Binary digits of the weights behind the point. */
export const WEIGHT_BITS = 22;

/** How many pixels an output may need: those closer than 2 widths of the filter. */
export const tapsNeeded = (length: number, size: number): number => Math.ceil(4 * Math.max(1, length / size));

/**
 * What each of the `size` outputs takes from an axis of `length` pixels, as rows of 2 + maxTaps words: the first
 * pixel, the number of weights, the weights.
 */
export const bicubicTaps = (length: number, size: number, maxTaps = tapsNeeded(length, size)): Int32Array => {
  if (maxTaps < tapsNeeded(length, size)) {
    throw new RangeError(
      `${length} pixels to ${size} need ${tapsNeeded(length, size)} taps: ${maxTaps} given`,
    );
  }
  const rows = new Int32Array(size * (2 + maxTaps));
  const scale = length / size;
  const filterScale = Math.max(1, scale);
  const inverse = 1 / filterScale;
  const weights = new Float64Array(maxTaps + 2); // Pillow's bounds may take in a pixel of weight 0 at either end
  for (let output = 0; output < size; output++) {
    const center = (output + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - 2 * filterScale + 0.5));
    const end = Math.min(length, Math.trunc(center + 2 * filterScale + 0.5));
    let sum = 0;
    for (let x = first; x < end; x++) {
      sum += weights[x - first] = bicubic((x - center + 0.5) * inverse);
    }
    let from = end - first, to = 0; // the weights that are not 0
    for (let i = 0; i < end - first; i++) {
      const weight = weights[i] / sum * 2 ** WEIGHT_BITS;
      weights[i] = Math.trunc(weight + (weight < 0 ? -0.5 : 0.5));
      if (weights[i] === 0) continue;
      from = Math.min(from, i);
      to = i + 1;
    }
    const row = output * (2 + maxTaps);
    rows[row] = first + from;
    rows[row + 1] = to - from;
    for (let i = from; i < to; i++) rows[row + 2 + i - from] = weights[i];
  }
  return rows;
};

const bicubic = (t: number): number => {
  t = Math.abs(t);
  if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
  if (t < 2) return (((t - 5) * t + 8) * t - 4) * -0.5;
  return 0;
};

/** The box of a picture, resized to size x size. */
export const cropResize = (picture: Picture, box: Box, size: number): Picture => {
  const [top, left, height, width] = box;
  const rows = new Uint8Array(height * size * 3); // after the first pass
  const source = (3 * (top * picture.width + left)) | 0;
  const across = { outer: 3 * picture.width, step: 3, from: source };
  resamplePass(picture.rgb, across, rows, { outer: 3 * size, step: 3, from: 0 }, height, width, size);
  const rgb = new Uint8Array(size * size * 3);
  const down = { outer: 3, step: 3 * size, from: 0 };
  resamplePass(rows, down, rgb, down, size, height, size);
  return { width: size, height: size, rgb };
};

/** Where lines of pixels lie: the first one, bytes from line to line, bytes from pixel to pixel of a line. */
interface Lines {
  readonly from: number;
  readonly outer: number;
  readonly step: number;
}

/** Resamples `lines` lines of `length` pixels to `size` pixels. */
const resamplePass = (
  source: Uint8Array,
  from: Lines,
  target: Uint8Array,
  to: Lines,
  lines: number,
  length: number,
  size: number,
) => {
  const taps = bicubicTaps(length, size);
  const stride = taps.length / size;
  for (let output = 0; output < size; output++) {
    const row = output * stride;
    const first = from.from + taps[row] * from.step;
    const count = taps[row + 1];
    for (let line = 0; line < lines; line++) {
      let at = first + line * from.outer;
      let red = HALF, green = HALF, blue = HALF;
      for (let tap = 0; tap < count; tap++, at += from.step) {
        const weight = taps[row + 2 + tap];
        red += weight * source[at];
        green += weight * source[at + 1];
        blue += weight * source[at + 2];
      }
      const out = to.from + line * to.outer + output * to.step;
      target[out] = clampByte(red >> WEIGHT_BITS);
      target[out + 1] = clampByte(green >> WEIGHT_BITS);
      target[out + 2] = clampByte(blue >> WEIGHT_BITS);
    }
  }
};

const HALF = 1 << (WEIGHT_BITS - 1);

const clampByte = (value: number): number => value < 0 ? 0 : value > 255 ? 255 : value;
