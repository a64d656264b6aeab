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

  return { uniform, integer: (bound) => Math.floor(uniform() * bound) };
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
