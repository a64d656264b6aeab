import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { mul } from "./arithmetic.ts";
import { gradients } from "./autodiff.ts";
import { constant } from "./graph/tensor.ts";
import { normalize } from "./normalize.ts";
import { sum } from "./reduce.ts";
import { evaluate } from "./runtime/program.ts";

gpuTest("normalize() gives rows of length 1 that point where they did", function* () {
  const x = numbers(6 * 7);
  const want = [...x].map((v, i) => {
    const row = x.subarray(i - i % 7, i - i % 7 + 7);
    return v / Math.hypot(...row);
  });
  assertClose(yield* evaluate(normalize(constant(x, [2, 3, 7]))), want, { rtol: 1e-6 });
});

gpuTest("normalize() leaves a zero row zero and lets a zero gradient through it", function* () {
  const x = constant([0, 0, 3, 4], [2, 2]);
  const y = normalize(x);
  const [dx] = gradients(sum(mul(y, constant([0, 0, 1, 0], [2, 2]))), [x]);
  assertClose(yield* evaluate(y), [0, 0, 0.6, 0.8]);
  assertClose(yield* evaluate(dx), [0, 0, 0.128, -0.096]);
});

gpuTest("normalize() has the gradient that finite differences give", function* () {
  yield* assertGradient(normalize, [{ shape: [3, 8], data: numbers(24) }]);
});
