import assert from "node:assert/strict";
import { extremes } from "./extremes.ts";

Deno.test("extremes() names the highest and the lowest, none twice, and leaves out what has no score", () => {
  const same = (value: number) => value;
  assert.deepEqual(extremes([3, NaN, 1, 5, 2], same, 3), { best: [3, 0], worst: [2, 4] });
  assert.deepEqual(extremes([3, 1, 5, 2, 4, 6, 0], same, 2), { best: [5, 2], worst: [6, 1] });
  assert.deepEqual(extremes([1], same), { best: [0], worst: [] });
});
