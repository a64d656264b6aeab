import assert from "node:assert/strict";
import { randomStream } from "../../data/random/random.ts";
import { bestAssignment } from "./assignment.ts";

/** The largest sum of gains, by trying all assignments. */
const best = (gains: readonly number[][], row = 0, taken: readonly number[] = []): number => {
  if (row === gains.length) return 0;
  let most = best(gains, row + 1, taken); // this row without a column
  gains[row].forEach((gain, column) => {
    if (!taken.includes(column)) most = Math.max(most, gain + best(gains, row + 1, [...taken, column]));
  });
  return most;
};

Deno.test("bestAssignment() gains as much as any assignment, whatever the numbers of rows and columns", () => {
  for (let trial = 0; trial < 200; trial++) {
    const random = randomStream(trial);
    const [rows, columns] = [1 + random.integer(5), 1 + random.integer(5)];
    // Few levels on every other trial: many ties.
    const draw = () => trial % 2 === 0 ? random.integer(3) : random.uniform();
    const gains = Array.from({ length: rows }, () => Array.from({ length: columns }, draw));
    const columnOf = bestAssignment(gains);
    const used = columnOf.filter((column) => column !== -1);
    assert.equal(used.length, Math.min(rows, columns));
    assert.equal(new Set(used).size, used.length);
    const gained = columnOf.reduce(
      (sum, column, row) => sum + (column === -1 ? 0 : gains[row][column]),
      0,
    );
    assert.ok(Math.abs(gained - best(gains)) < 1e-12, `${gained} of ${best(gains)}`);
  }
});
