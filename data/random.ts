/**
 * Random numbers that depend on their key alone: not on the machine, on what was drawn before, or on who else draws.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a
 * counter and a key into four random words. Here the first word of the counter counts blocks and all other words come
 * from the caller, so two different keys can never meet in the same numbers.
 */

/** A stream of random numbers. Every call moves it on. */
export interface Random {
  /** A number in [low, high), with 53 random bits. */
  uniform(low?: number, high?: number): number;
  /** A whole number in [0, bound). */
  integer(bound: number): number;
  /** A number from the normal distribution of mean 0 and variance 1. */
  normal(): number;
}

/**
 * The random numbers of a key of at most five words in [0, 2^32), for example seed, purpose, epoch, image and view.
 * Words that are left out are 0.
 */
export const randomStream = (...key: readonly number[]): Random => {
  if (key.length > 5 || key.some((word) => word !== word >>> 0)) {
    throw new RangeError(
      `A random stream needs at most five whole numbers in [0, 2^32) as key: ${key.join(", ")}`,
    );
  }
  const [k0 = 0, k1 = 0, c1 = 0, c2 = 0, c3 = 0] = key;
  const block = new Uint32Array(4);
  let blocks = 0;
  let used = 4;
  const word = () => {
    if (used === 4) {
      philox4x32(block, blocks++, c1, c2, c3, k0, k1);
      used = 0;
    }
    return block[used++];
  };

  const uniform = (low = 0, high = 1) =>
    low + (high - low) * ((word() * 2 ** 21 + (word() >>> 11)) / 2 ** 53);

  // Box and Muller's method makes normal numbers in pairs.
  let spare: number | null = null;
  const point = new Float64Array(2);
  const normal = () => {
    if (spare !== null) {
      const value = spare;
      spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())); // 1 - u is never 0
    pointAt(uniform(), point);
    spare = radius * point[1];
    return radius * point[0];
  };

  return { uniform, integer: (bound) => Math.floor(uniform() * bound), normal };
};

const [S3, S5, S7, S9, S11, S13, S15, S17] = [3, 5, 7, 9, 11, 13, 15, 17].map((n) => 1 / (n * (n - 1)));
const [C2, C4, C6, C8, C10, C12, C14, C16] = [2, 4, 6, 8, 10, 12, 14, 16].map((n) => 1 / (n * (n - 1)));

/**
 * Cosine and sine of a share of the full turn, in [0, 1), by their series within an eighth of a turn of the nearest axis:
 * to the last bit or so, in half the time of `Math.cos` and `Math.sin`, and the same on every machine.
 */
const pointAt = (turns: number, out: Float64Array): void => {
  const quarter = Math.round(4 * turns);
  const x = (4 * turns - quarter) * (Math.PI / 2);
  const y = x * x;
  // x − x³/3! + x⁵/5! − …, and 1 − x²/2! + x⁴/4! − …, from the inside out
  const sine = x * (1 - y * S3 * (1 - y * S5 * (1 - y * S7 * (1 - y * S9 * (1 - y * S11 * (1 - y * S13 *
                          (1 - y * S15 * (1 - y * S17))))))));
  const cosine = 1 - y * C2 * (1 - y * C4 * (1 - y * C6 * (1 - y * C8 * (1 - y * C10 * (1 - y * C12 *
                          (1 - y * C14 * (1 - y * C16)))))));
  const even = (quarter & 1) === 0;
  out[0] = (quarter + 1 & 2) === 0 ? (even ? cosine : sine) : (even ? -cosine : -sine);
  out[1] = (quarter & 2) === 0 ? (even ? sine : cosine) : (even ? -sine : -cosine);
};

/**
 * Fills an array with the numbers from `first` on that `randomStream(...key).normal()` gives one after the other, times
 * `deviation`: in half the time, and from any even number on.
 */
export const fillNormals = (
  out: Float32Array,
  [k0 = 0, k1 = 0, c1 = 0, c2 = 0, c3 = 0]: readonly number[],
  { deviation, first = 0 }: { readonly deviation: number; readonly first?: number },
): void => {
  const block = new Uint32Array(4); // makes a pair
  const point = new Float64Array(2);
  for (let i = 0; i < out.length; i += 2) {
    philox4x32(block, (first + i) / 2, c1, c2, c3, k0, k1);
    const radius = Math.sqrt(-2 * Math.log(1 - (block[0] * 2 ** 21 + (block[1] >>> 11)) / 2 ** 53));
    pointAt((block[2] * 2 ** 21 + (block[3] >>> 11)) / 2 ** 53, point);
    out[i] = deviation * (radius * point[0]);
    if (i + 1 < out.length) out[i + 1] = deviation * (radius * point[1]);
  }
};

/** The numbers 0 … count − 1 in the random order that belongs to the key (Fisher and Yates's shuffle). */
export const permutation = (count: number, ...key: readonly number[]): Uint32Array => {
  const random = randomStream(...key);
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
};

/** Ten rounds of Philox4x32: the counter c0 … c3 under the key k0, k1 to four random words in `out`. */
export const philox4x32 = (
  out: Uint32Array,
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
): void => {
  for (let round = 0; round < 10; round++) {
    const next0 = highWord(0xcd9e8d57, c2) ^ c1 ^ k0;
    const next2 = highWord(0xd2511f53, c0) ^ c3 ^ k1;
    c1 = Math.imul(0xcd9e8d57, c2);
    c3 = Math.imul(0xd2511f53, c0);
    c0 = next0;
    c2 = next2;
    k0 = (k0 + 0x9e3779b9) | 0;
    k1 = (k1 + 0xbb67ae85) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
};

/** Upper 32 bits of the 64-bit product of two words, from products of 16-bit halves; no sum of them exceeds 32 bits. */
const highWord = (a: number, b: number): number => {
  const aLow = a & 0xffff, aHigh = a >>> 16;
  const bLow = b & 0xffff, bHigh = b >>> 16;
  const middle = Math.imul(aHigh, bLow) + (Math.imul(aLow, bLow) >>> 16);
  const carry = ((middle & 0xffff) + Math.imul(aLow, bHigh)) >>> 16;
  return (Math.imul(aHigh, bHigh) + (middle >>> 16) + carry) | 0;
};
