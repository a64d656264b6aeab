/**
 * Normal numbers by arithmetic on integers alone, so that every device and the host draw the same bits: drivers may fuse and
 * approximate what is done with floats. ops/runtime/draw_normals.ts does the same in WGSL.
 *
 * The last bit of a random word is a sign, the others are a share of the distribution's two tails, u = (word | 1) / 2^32.
 * The number is ±z with P(|Z| > z) = u: from a table of quantiles, 128 an octave of u, with straight lines between them.
 * It strays from the true quantile by less than 4e-6, and reaches 6.34.
 */
import { philox4x32 } from "./random.ts";

/** What numbers are multiples of: all are below 2^24 steps, so that 32-bit floats hold them exactly. */
export const NORMAL_STEP = 2 ** -21;

const OCTAVES = 32, PER_OCTAVE = 128;

/** The quantiles z of u = 2^-32 to 1 in steps of `NORMAL_STEP`: entry 128 k + j is that of u = 2^(k - 32) (1 + j / 128). */
export const normalQuantiles = (): Uint32Array<ArrayBuffer> => table ??= solvedQuantiles();

let table: Uint32Array<ArrayBuffer> | null = null;

/** Newton's method, from each quantile to the next. So coarse a rounding hides what machines could do differently. */
const solvedQuantiles = () => {
  const quantiles = new Uint32Array(OCTAVES * PER_OCTAVE + 1);
  let z = 0;
  for (let i = quantiles.length - 1; i >= 0; i--) {
    const u = 2 ** (Math.floor(i / PER_OCTAVE) - OCTAVES) * (1 + i % PER_OCTAVE / PER_OCTAVE);
    for (let pass = 0; pass < 2; pass++) {
      const density = Math.sqrt(2 / Math.PI) * Math.exp(-z * z / 2);
      z += (tails(z, density) - u) / density;
    }
    quantiles[i] = Math.round(z / NORMAL_STEP);
  }
  return quantiles;
};

/** P(|Z| > z), whose derivative is -density. */
const tails = (z: number, density: number): number => {
  if (z < 2) { // 1 - density (z + z³/3 + z⁵/(3·5) + …)
    let sum = 0;
    for (let term = z, n = 3; term > 1e-17; term *= z * z / n, n += 2) sum += term;
    return 1 - density * sum;
  }
  let fraction = z; // Laplace's: density / (z + 1/(z + 2/(z + 3/(z + …))))
  for (let n = 40; n > 0; n--) fraction = z + n / fraction;
  return density / fraction;
};

/** The normal number of a random word, in steps. */
export const normalOf = (word: number, quantiles = normalQuantiles()): number => {
  const share = word | 1;
  const zeros = Math.clz32(share);
  const digits = share << zeros; // the first of them is 1; 7 choose a line, and the next 17 a place on it
  const i = (OCTAVES - 1 - zeros) * PER_OCTAVE + (digits >>> 24 & 0x7f);
  const drop = (quantiles[i] - quantiles[i + 1]) * (digits >>> 7 & 0x1ffff); // below 2^31
  const z = quantiles[i] - (drop + 0x10000 >> 17);
  return (word & 1) === 0 ? z : -z | 0; // never -0, which integers lack
};

/**
 * Fills an array with independent normal numbers of mean 0 and standard deviation `deviation`: four from each block of
 * Philox under the key, at most five words in [0, 2^32) as `randomStream` takes them.
 */
export const fillNormals = (
  out: Float32Array,
  [k0 = 0, k1 = 0, c1 = 0, c2 = 0, c3 = 0]: readonly number[],
  deviation: number,
): void => {
  const quantiles = normalQuantiles();
  const scale = Math.fround(deviation * NORMAL_STEP);
  const block = new Uint32Array(4);
  for (let i = 0; i < out.length; i += 4) {
    philox4x32(block, i / 4, c1, c2, c3, k0, k1);
    const count = Math.min(4, out.length - i);
    for (let j = 0; j < count; j++) out[i + j] = scale * normalOf(block[j], quantiles);
  }
};
