import assert from "node:assert/strict";
import { fillNormals, NORMAL_STEP, normalOf } from "./normals.ts";

// The distribution by numerical integration from the far end on (Simpson's rule): P(|Z| > z) for z = 0, STEP, 2 STEP, …
const STEP = 2 ** -9, FAR = 12;
const density = (z: number) => Math.sqrt(2 / Math.PI) * Math.exp(-z * z / 2);
const tails = new Float64Array(FAR / STEP + 1);
for (let i = tails.length - 2; i >= 0; i--) {
  const [a, b] = [i * STEP, (i + 1) * STEP];
  tails[i] = tails[i + 1] + (density(a) + 4 * density((a + b) / 2) + density(b)) * STEP / 6;
}
/** P(Z < z). */
const cumulative = (z: number): number => {
  const place = Math.abs(z) / STEP, i = Math.floor(place);
  const tail = (tails[i] + (place - i) * (tails[i + 1] - tails[i])) / 2;
  return z < 0 ? tail : 1 - tail;
};

/** The normal number of a share of both tails. */
const quantile = (share: number) => NORMAL_STEP * normalOf(Math.min(share * 2 ** 32, 2 ** 32 - 2) & ~1);

Deno.test("normalOf() gives the quantiles of tables, and those of numerical integration, to 4e-6", () => {
  const published = [[0.5, 0.6744898], [0.1, 1.6448536], [0.05, 1.9599640], [0.01, 2.5758293]];
  published.push([1e-3, 3.2905267], [1e-4, 3.8905919], [1e-6, 4.8916385]);
  for (const [share, z] of published) assert.ok(Math.abs(quantile(share) - z) < 4e-6, `${share}: ${z}`);
  for (let i = 0; i * STEP < 6.3; i++) {
    const z = i * STEP;
    const error = Math.abs(quantile(tails[i]) - z);
    const nextWord = 2 ** -31 / density(z); // how far off that is: most of the error in the last octaves
    assert.ok(error < 4e-6 + nextWord, `${z}: off by ${error}`);
  }
});

Deno.test("normalOf() never rises with the share, is mirrored by the last bit, and stays below 2^24", () => {
  let last = normalOf(0);
  assert.ok(last > 6.33 / NORMAL_STEP && last < 2 ** 24);
  for (let octave = 1; octave < 32; octave++) {
    for (let j = 0; j < 1024; j++) {
      const word = Math.floor(2 ** octave * (1 + j / 1024)) & ~1;
      const z = normalOf(word);
      assert.ok(z <= last, `${word >>> 0}: ${z} after ${last}`);
      assert.equal(normalOf(word | 1), z === 0 ? 0 : -z);
      last = z;
    }
  }
  assert.equal(normalOf(-1), 0);
});

const N = 2 ** 20;
const drawn = (...key: number[]) => {
  const values = new Float32Array(N);
  fillNormals(values, key, 1);
  return values;
};

Deno.test("fillNormals() draws from the normal distribution, in its middle and in its tails", () => {
  const values = drawn(3, 1, 4).sort();
  let distance = 0; // of Kolmogorov and Smirnov
  values.forEach((value, i) => {
    const p = cumulative(value);
    distance = Math.max(distance, (i + 1) / N - p, p - i / N);
  });
  assert.ok(distance * Math.sqrt(N) < 1.63, `${distance}`); // passes 99 times of 100
  for (const z of [2, 3, 4, 4.5]) {
    for (const side of [1, -1]) {
      const want = N * cumulative(-z);
      const count = values.reduce((count, value) => count + (side * value > z ? 1 : 0), 0);
      assert.ok(Math.abs(count - want) < 4 * Math.sqrt(want), `beyond ${side * z}: ${count}, not ${want}`);
    }
  }
  const moment = (power: number) => values.reduce((sum, value) => sum + value ** power, 0) / N;
  // The even moments of order 2n are 1·3·5·… up to 2n − 1, from which the errors of all follow.
  [[1, 0, 1], [2, 1, 2], [3, 0, 15], [4, 3, 96]].forEach(([power, want, variance]) => {
    const got = moment(power);
    assert.ok(Math.abs(got - want) < 4 * Math.sqrt(variance / N), `moment ${power}: ${got}`);
  });
});

Deno.test("fillNormals() draws numbers that have nothing to do with their neighbours or those of another key", () => {
  const values = drawn(3, 1, 4);
  const correlation = (a: Float32Array, b: Float32Array, shift = 0) => {
    let [plain, square] = [0, 0];
    for (let i = 0; i < N - shift; i++) {
      plain += a[i] * b[i + shift] / N;
      square += (a[i] ** 2 - 1) * (b[i + shift] ** 2 - 1) / 2 / N;
    }
    return Math.max(Math.abs(plain), Math.abs(square)) * Math.sqrt(N);
  };
  for (let shift = 1; shift <= 9; shift++) {
    const found = correlation(values, values, shift);
    assert.ok(found < 4, `${shift} further on: ${found}`);
  }
  for (const key of [[4, 1, 4], [3, 0, 4], [3, 1, 5], [3, 1, 4, 1], [3, 1, 4, 0, 1]]) {
    const found = correlation(values, drawn(...key));
    assert.ok(found < 4, `key ${key}: ${found}`);
  }
});

Deno.test("fillNormals() repeats itself, whatever the length, and scales by one rounding", () => {
  const whole = new Float32Array(11), piece = new Float32Array(6);
  fillNormals(whole, [5, 1, 2], 0.02);
  fillNormals(piece, [5, 1, 2], 0.02);
  assert.deepEqual(piece, whole.subarray(0, 6));
  const plain = new Float32Array(11);
  fillNormals(plain, [5, 1, 2], 1);
  assert.deepEqual(whole, plain.map((value) => Math.fround(0.02) * value));
});
