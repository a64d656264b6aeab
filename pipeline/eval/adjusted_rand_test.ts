import assert from "node:assert/strict";
import { randomStream } from "../../data/random/random.ts";
import { adjustedRandIndex, foregroundRandIndex } from "./adjusted_rand.ts";

/** The same index, by looking at every pair of elements (as scikit-learn defines it). */
const byPairs = (a: readonly number[], b: readonly number[]): number => {
  let [both, onlyA, onlyB, neither] = [0, 0, 0, 0];
  a.forEach((_, i) =>
    a.slice(0, i).forEach((_, j) => {
      const [sameA, sameB] = [a[i] === a[j], b[i] === b[j]];
      if (sameA && sameB) both++;
      else if (sameA) onlyA++;
      else if (sameB) onlyB++;
      else neither++;
    })
  );
  if (onlyA === 0 && onlyB === 0) return 1;
  return 2 * (both * neither - onlyA * onlyB) /
    ((both + onlyA) * (onlyA + neither) + (both + onlyB) * (onlyB + neither));
};

Deno.test("adjustedRandIndex() is what counting pairs gives", () => {
  for (let trial = 0; trial < 300; trial++) {
    const random = randomStream(trial);
    const [length, groups] = [1 + random.integer(20), 1 + random.integer(6)];
    const a = Array.from({ length }, () => random.integer(groups));
    // Independent on every other trial, else mostly alike under other numbers.
    const b = a.map((label) => trial % 2 === 0 || random.uniform() < 0.2 ? random.integer(4) : 7 - label);
    const [found, expected] = [adjustedRandIndex(a, b), byPairs(a, b)];
    assert.ok(Math.abs(found - expected) < 1e-12, `trial ${trial}: ${found} and not ${expected}`);
  }
});

Deno.test("foregroundRandIndex() looks at elements with a label only", () => {
  const objects = [0, 0, 1, 1, 2, 2, 0];
  assert.equal(foregroundRandIndex(objects, [5, 6, 5, 5, 6, 6, 4]), 1);
  assert.equal(foregroundRandIndex(objects, [5, 6, 5, 5, 6, 5, 4]), byPairs([1, 1, 2, 2], [5, 5, 6, 5]));
  assert.equal(foregroundRandIndex([0, 0], [1, 2]), null);
});
