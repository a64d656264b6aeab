import { assertClose, assertGradient, gpuTest, numbers, random } from "./_test_kit.ts";
import { concat } from "./concat.ts";
import { evaluate } from "./runtime/program.ts";
import { slice } from "./slice.ts";

gpuTest("concat() puts tensors side by side, in their order, by single floats and by fours", function* () {
  for (const widths of [[3, 5], [4, 8], [8, 3, 4], [2, 4], [1]]) {
    const parts = widths.map((C, i) => random([2, 3, C], i + 1));
    const all = concat(parts);
    let start = 0;
    for (const [i, C] of widths.entries()) {
      const what = `part ${i} of ${widths}`;
      assertClose(yield* evaluate(slice(all, 2, start, C)), numbers(6 * C, i + 1), { rtol: 0, what });
      start += C;
    }
  }
});

gpuTest("concat() has the gradient that finite differences give", function* () {
  const inputs = [[2, 3], [2, 4]].map((shape, i) => ({ shape, data: numbers(2 * (3 + i), i + 1) }));
  yield* assertGradient((...parts) => concat(parts), inputs);
});
