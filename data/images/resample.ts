/**
 * Pillow's antialiased resampling, bit for bit.
 *
 * Each axis is one pass. Output o of a pass over n pixels lies at c = (o + 1/2) · n/size and is a weighted mean of the
 * pixels x around it, with t = (x + 1/2 − c) / max(1, n/size) and weights
 *
 *     bicubic:  w(t) = 1.5|t|³ − 2.5|t|² + 1             |t| ≤ 1
 *                    = −0.5|t|³ + 2.5|t|² − 4|t| + 2     |t| ≤ 2
 *     bilinear: w(t) = 1 − |t|                           |t| ≤ 1
 *
 * divided by their sum and rounded to 22 binary digits. Both passes, first along rows, then along columns, round their
 * sums to 8 bits.
 */
import type { Picture } from "./picture.ts";

/** Top, left, height and width of a crop, in pixels of the image. */
export type Box = readonly [top: number, left: number, height: number, width: number];

/** Binary digits of the weights behind the point. */
export const WEIGHT_BITS = 22;

interface Filter {
  readonly radius: number; // beyond it the weight is 0
  readonly weight: (t: number) => number;
}

const BICUBIC: Filter = {
  radius: 2,
  weight: (t) => {
    t = Math.abs(t);
    if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
    if (t < 2) return (((t - 5) * t + 8) * t - 4) * -0.5;
    return 0;
  },
};

const BILINEAR: Filter = { radius: 1, weight: (t) => Math.max(0, 1 - Math.abs(t)) };

/** How many pixels an output of the bicubic filter may need: those closer than 2 widths of the filter. */
export const tapsNeeded = (length: number, size: number): number => tapsOf(BICUBIC, length, size);

const tapsOf = ({ radius }: Filter, length: number, size: number) =>
  Math.ceil(2 * radius * Math.max(1, length / size));

/**
 * What each of the `size` outputs of the bicubic filter takes from an axis of `length` pixels, as rows of 2 + maxTaps
 * words: the first pixel, the number of weights, the weights.
 */
export const bicubicTaps = (length: number, size: number, maxTaps = tapsNeeded(length, size)): Int32Array => {
  if (maxTaps < tapsNeeded(length, size)) {
    throw new RangeError(
      `${length} pixels to ${size} need ${tapsNeeded(length, size)} taps: ${maxTaps} given`,
    );
  }
  return filterTaps(BICUBIC, length, size, maxTaps);
};

/** The rows of `count` outputs from the `first` on, of all where these are not given. */
const filterTaps = (
  filter: Filter,
  length: number,
  size: number,
  maxTaps = tapsOf(filter, length, size),
  { first: firstOutput, count } = { first: 0, count: size },
): Int32Array => {
  const { radius, weight } = filter;
  const rows = new Int32Array(count * (2 + maxTaps));
  const scale = length / size;
  const filterScale = Math.max(1, scale);
  const inverse = 1 / filterScale;
  const weights = new Float64Array(maxTaps + 2); // Pillow's bounds may take in a pixel of weight 0 at either end
  for (let output = firstOutput; output < firstOutput + count; output++) {
    const center = (output + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - radius * filterScale + 0.5));
    const end = Math.min(length, Math.trunc(center + radius * filterScale + 0.5));
    let sum = 0;
    for (let x = first; x < end; x++) {
      sum += weights[x - first] = weight((x - center + 0.5) * inverse);
    }
    let from = end - first, to = 0; // the weights that are not 0
    for (let i = 0; i < end - first; i++) {
      const weight = weights[i] / sum * 2 ** WEIGHT_BITS;
      weights[i] = Math.trunc(weight + (weight < 0 ? -0.5 : 0.5));
      if (weights[i] === 0) continue;
      from = Math.min(from, i);
      to = i + 1;
    }
    const row = (output - firstOutput) * (2 + maxTaps);
    rows[row] = first + from;
    rows[row + 1] = to - from;
    for (let i = from; i < to; i++) rows[row + 2 + i - from] = weights[i];
  }
  return rows;
};

/** The box of an image, resized to size x size with the bicubic filter. */
export const cropResize = (picture: Picture, box: Box, size: number): Picture =>
  resample(BICUBIC, picture, box, { width: size, height: size }, [0, 0, size, size]);

/** The box of what an image is in another size, with the bilinear filter. */
export const resizeCrop = (picture: Picture, to: Size, box: Box): Picture =>
  resample(BILINEAR, picture, [0, 0, picture.height, picture.width], to, box);

interface Size {
  readonly width: number;
  readonly height: number;
}

/**
 * Resizes the box `from` to `size` and makes the box `kept` of that. Only what the kept box takes is computed, in bands
 * of rows, so that memory is bounded for panoramas of any length.
 */
const resample = (filter: Filter, picture: Picture, from: Box, size: Size, kept: Box): Picture => {
  const [fromTop, fromLeft, fromHeight, fromWidth] = from;
  const [top, left, height, width] = kept;
  const across = axisTaps(filter, { length: fromWidth, size: size.width, first: left, count: width });
  const rgb = new Uint8Array(height * width * 3);
  const bands = Math.min(height, Math.ceil(3 * width * fromHeight / MOST_BYTES));
  for (let band = 0; band < bands; band++) {
    const [first, end] = [band, band + 1].map((edge) => Math.floor(edge * height / bands));
    const down = axisTaps(filter, {
      length: fromHeight,
      size: size.height,
      first: top + first,
      count: end - first,
    });
    const lines = down.end - down.begin;
    const rows = new Uint8Array(lines * width * 3); // after the first pass
    const source = (3 * ((fromTop + down.begin) * picture.width + fromLeft)) | 0;
    resamplePass(
      across,
      { bytes: picture.rgb, outer: 3 * picture.width, step: 3, from: source },
      { bytes: rows, outer: 3 * width, step: 3, from: 0 },
      lines,
    );
    const columns = { outer: 3, step: 3 * width };
    resamplePass(
      down,
      { bytes: rows, ...columns, from: -down.begin * columns.step },
      { bytes: rgb, ...columns, from: first * columns.step },
      width,
    );
  }
  return { width, height, rgb };
};

/** Bytes of an image after its first pass. */
const MOST_BYTES = 2 ** 28;

/** Where lines of pixels are: the first one, bytes from line to line, bytes from pixel to pixel of a line. */
interface Lines {
  readonly bytes: Uint8Array;
  readonly from: number;
  readonly outer: number;
  readonly step: number;
}

/** An axis of `length` pixels that becomes one of `size` pixels, of which `count` are made, from the `first` on. */
interface Axis {
  readonly length: number;
  readonly size: number;
  readonly first: number;
  readonly count: number;
}

/** The rows of taps of an axis, and which of its pixels they take. */
interface AxisTaps {
  readonly taps: Int32Array;
  readonly count: number; // of outputs
  readonly begin: number;
  readonly end: number;
}

const axisTaps = (filter: Filter, { length, size, first, count }: Axis): AxisTaps => {
  const taps = filterTaps(filter, length, size, tapsOf(filter, length, size), { first, count });
  const stride = taps.length / count;
  let begin = length, end = 0;
  for (let row = 0; row < taps.length; row += stride) {
    begin = Math.min(begin, taps[row]);
    end = Math.max(end, taps[row] + taps[row + 1]);
  }
  return { taps, count, begin, end };
};

/** Resamples `lines` lines along an axis. */
const resamplePass = ({ taps, count: outputs }: AxisTaps, from: Lines, to: Lines, lines: number) => {
  const stride = taps.length / outputs;
  const source = from.bytes, target = to.bytes;
  for (let output = 0; output < outputs; output++) {
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
