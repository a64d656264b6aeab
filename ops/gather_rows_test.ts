import assert from "node:assert/strict";
import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { compactRows } from "./compact_rows.ts";
import { gatherIndices, gatherRows, scatterRows } from "./gather_rows.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";

const chosen = [1, 2, 5];
const rows = compactRows(constant([0, 1, 1, 0, 0, 1, 0]), 4);

gpuTest("gatherRows() takes the chosen rows and scatterRows() puts them back among zeros", function* () {
  for (const D of [3, 8]) {
    const data = numbers(7 * D);
    const gathered = gatherRows(constant(data, [7, D]), rows);
    const want = new Float32Array(4 * D), wantBack = new Float32Array(7 * D);
    chosen.forEach((row, place) => {
      want.set(data.subarray(row * D, row * D + D), place * D);
      wantBack.set(data.subarray(row * D, row * D + D), row * D);
    });
    assertClose(yield* evaluate(gathered), want, { rtol: 0 });
    assertClose(yield* evaluate(scatterRows(gathered, rows)), wantBack, { rtol: 0 });
  }
});

gpuTest("lookUp() reads a table of integers and passes unused entries on", function* () {
  const table = constant(Uint32Array.of(10, 11, 12, 13, 14, 15, 16));
  const none = Math.fround(0xffffffff); // integers are read back as floats
  assert.deepEqual([...yield* evaluate(gatherIndices(table, rows.indices))], [11, 12, 15, none]);
});

gpuTest("gatherRows() and scatterRows() have the gradients that finite differences give", function* () {
  yield* assertGradient((x) => gatherRows(x, rows), [{ shape: [7, 3], data: numbers(21) }], { probes: 12 });
  yield* assertGradient((y) => scatterRows(y, rows), [{ shape: [4, 4], data: numbers(16) }], { probes: 12 });
});
