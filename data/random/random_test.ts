import assert from "node:assert/strict";
import { permutation, philox4x32, randomStream } from "./random.ts";

// Known answers that Random123, the library of the generator's authors, publishes: counter, key, result.
const knownAnswers = [
  ["00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
  ["ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"],
  ["243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"],
];
const words = (text: string) => text.split(" ").map((word) => parseInt(word, 16));

Deno.test("philox4x32() gives the known answers of its authors", () => {
  for (const [counter, key, result] of knownAnswers) {
    const [c0, c1, c2, c3] = words(counter);
    const [k0, k1] = words(key);
    const out = new Uint32Array(4);
    philox4x32(out, c0, c1, c2, c3, k0, k1);
    assert.deepEqual([...out], words(result));
  }
});

Deno.test("randomStream() repeats itself for a key and differs for every other key", () => {
  const draw = (...key: number[]) => {
    const random = randomStream(...key);
    return Array.from({ length: 9 }, () => random.uniform()).join();
  };
  assert.equal(draw(7, 1, 2, 3, 4), draw(7, 1, 2, 3, 4));
  const keys = [[7, 1, 2, 3, 4], [8, 1, 2, 3, 4], [7, 0, 2, 3, 4], [7, 1, 3, 3, 4], [7, 1, 2, 4, 4], [
    7,
    1,
    2,
    3,
  ]];
  assert.equal(new Set(keys.map((key) => draw(...key))).size, keys.length);
  assert.throws(() => randomStream(-1), /whole numbers/);
  assert.throws(() => randomStream(1, 2, 3, 4, 5, 6), /at most five/);
});

Deno.test("randomStream() draws from the distributions that it names", () => {
  const random = randomStream(1);
  const count = 40_000;
  const moments = (draw: () => number) => {
    const values = Array.from({ length: count }, draw);
    const mean = values.reduce((sum, value) => sum + value) / count;
    return [mean, values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count];
  };
  const near = (got: number[], want: number[]) =>
    got.forEach((value, i) => assert.ok(Math.abs(value - want[i]) < 0.03, `${got} is not near ${want}`));
  near(moments(() => random.uniform(-1, 2)), [0.5, 9 / 12]);
  near(moments(() => random.integer(4)), [1.5, 1.25]);
});

Deno.test("permutation() holds every number once and is spread evenly", () => {
  const order = permutation(1000, 3, 1);
  assert.deepEqual([...order].sort((a, b) => a - b), [...Array(1000).keys()]);
  const firsts = new Uint32Array(4);
  for (let key = 0; key < 4000; key++) firsts[permutation(4, key)[0]]++;
  assert.ok(firsts.every((times) => times > 850 && times < 1150), `${firsts}`);
});
