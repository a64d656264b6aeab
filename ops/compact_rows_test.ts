import assert from "node:assert/strict";
import { gpuTest, numbers } from "./_test_kit.ts";
import { compactRows } from "./compact_rows.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";

const NONE = Math.fround(0xffffffff); // integers are read back as floats

gpuTest("selectRows() numbers the rows of a mask without gaps, in order", function* () {
  for (
    const [M, threshold, capacity] of [[1, -1, 1], [100, 0, 100], [1000, 1, 10], [1000, 0.5, 50], [
      70000,
      0.9,
      9000,
    ]]
  ) {
    const mask = numbers(M, M).map((v) => v >= threshold ? 1 : 0);
    const chosen = [...mask.keys()].filter((i) => mask[i] === 1).slice(0, capacity);
    const wantPositions = new Array(M).fill(NONE);
    chosen.forEach((row, position) => wantPositions[row] = position);
    const { indices, positions, count } = compactRows(constant(mask), capacity);
    const unused = new Array(capacity - chosen.length).fill(NONE);
    assert.deepEqual([...yield* evaluate(indices)], [...chosen, ...unused], `indices of ${M}`);
    assert.deepEqual([...yield* evaluate(positions)], wantPositions, `positions of ${M}`);
    assert.deepEqual([...yield* evaluate(count)], [chosen.length], `count of ${M}`);
  }
});
