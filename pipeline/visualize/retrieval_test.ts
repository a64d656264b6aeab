import assert from "node:assert/strict";
import { NearestPictures, slotScores } from "./retrieval.ts";

Deno.test("slotScores() is the mean over the locations won, and for a prototype that wins nowhere over all", () => {
  // Three locations; prototype 0 wins two of them, 1 one (the first of equals), 2 none.
  const dots = Float32Array.of(0.75, 0.5, 0.25, 0.5, 0.25, -0.25, -0.5, 0.125, 0.125);
  const { scores, wins } = slotScores(dots, 3);
  assert.deepEqual([...wins], [2, 1, 0]);
  const smooth = (won: number, all: number, count: number) => (won + 1e-6 * all) / (count + 3e-6);
  const expected = [smooth(1.25, 0.75, 2), smooth(0.125, 0.875, 1), 0.125 / 3];
  for (const [k, score] of scores.entries()) {
    assert.ok(Math.abs(score - expected[k]) < 1e-12, `${k}: ${score}, not ${expected[k]}`);
  }
});

Deno.test("NearestPictures keeps the best of each prototype, and of equals the earlier", () => {
  const nearest = new NearestPictures(2, 3);
  const scores = [[0.5, 1], [0.7, 1], [0.5, 1], [0.9, 1], [0.5, 2]];
  scores.forEach((each, picture) => nearest.add(picture, Float64Array.from(each)));
  assert.deepEqual(nearest.all.map((found) => found.map(({ picture }) => picture)), [[3, 1, 0], [4, 0, 1]]);
  assert.deepEqual(nearest.all[0].map(({ score }) => score), [0.9, 0.7, 0.5]);
});
