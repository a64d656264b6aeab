import { assertClose, gpuTest, numbers } from "./_test_kit.ts";
import { argmaxCounts, argmaxUsed } from "./argmax_counts.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";

gpuTest(
  "winners() marks exactly the columns with a row's largest score, the first of equals; winCounts() counts",
  function* () {
    const [N, P, K] = [3, 10, 7];
    const scores = numbers(N * P * K).map((v) => Math.round(v * 3)); // few levels: many ties
    const counts = new Float32Array(N * K);
    for (let row = 0; row < N * P; row++) {
      const values = scores.subarray(row * K, row * K + K);
      counts[Math.floor(row / P) * K + values.indexOf(Math.max(...values))] += 1;
    }
    const x = constant(scores, [N, P, K]);
    assertClose(yield* evaluate(argmaxUsed(x)), counts.map((count) => Math.min(count, 1)), { rtol: 0 });
    assertClose(yield* evaluate(argmaxCounts(x)), counts, { rtol: 0 });
  },
);
