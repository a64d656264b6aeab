/** Bilinear resizing by plain loops, for tests: the weights of all cells for every pixel of an axis. */

/** Row i has the weights of the `cells` for pixel i of `pixels`. */
export const axisWeights = (pixels: number, cells: number, alignCorners: boolean): number[][] =>
  Array.from({ length: pixels }, (_, i) => {
    const at = alignCorners
      ? (pixels === 1 ? 0 : i * (cells - 1) / (pixels - 1))
      : Math.max((i + 0.5) * cells / pixels - 0.5, 0);
    const low = Math.min(Math.floor(at + 1e-12), cells - 1); // what should be whole may fall short by rounding
    const weights = new Array<number>(cells).fill(0);
    weights[low] += 1 - (at - low);
    weights[Math.min(low + 1, cells - 1)] += at - low;
    return weights;
  });

/** Maps [N, h, w, C] resized to [N, height, width, C]. */
export const resized = (
  x: ArrayLike<number>,
  [N, h, w, C]: readonly number[],
  { height, width, alignCorners }: { height: number; width: number; alignCorners: boolean },
): Float64Array => {
  const [down, across] = [axisWeights(height, h, alignCorners), axisWeights(width, w, alignCorners)];
  const y = new Float64Array(N * height * width * C);
  for (let at = 0; at < y.length; at++) {
    const c = at % C, j = Math.floor(at / C) % width, i = Math.floor(at / C / width) % height;
    const n = Math.floor(at / C / width / height);
    for (let a = 0; a < h; a++) {
      if (down[i][a] === 0) continue;
      for (let b = 0; b < w; b++) y[at] += down[i][a] * across[j][b] * x[((n * h + a) * w + b) * C + c];
    }
  }
  return y;
};

/** Sizes h × w and height × width worth a test: larger, smaller, equal, odd, and single cells and pixels. */
export const SIZES: readonly (readonly [number, number, number, number])[] = [
  [3, 4, 12, 8],
  [3, 5, 13, 11],
  [7, 6, 3, 4],
  [4, 4, 4, 4],
  [1, 1, 5, 6],
  [1, 3, 4, 9],
  [5, 4, 1, 1],
  [2, 2, 1, 17],
];
