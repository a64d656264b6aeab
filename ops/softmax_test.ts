import { Effect } from "effect";
import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { constant } from "./graph/tensor.ts";
import { Gpu } from "./runtime/gpu.ts";
import { evaluate } from "./runtime/program.ts";
import { logSoftmax, softmax } from "./softmax.ts";

/** Softmax of rows of K values in double precision. */
const reference = (x: Float32Array, K: number, temperature: number): number[] =>
  [...x].map((v, i) => {
    const row = [...x.subarray(i - i % K, i - i % K + K)];
    return 1 / row.reduce((sum, other) => sum + Math.exp((other - v) / temperature), 0);
  });

gpuTest(
  "softmax() and logSoftmax() agree with loops on rows of any length, on both kinds of adapter",
  function* () {
    const gpu = yield* Gpu;
    for (const cpu of [true, false]) {
      const run = Effect.provideService(Gpu, { ...gpu, traits: { ...gpu.traits, cpu } });
      for (const [rows, K] of [[6, 5], [3, 16], [5, 257], [70, 300]]) {
        const x = numbers(rows * K, K).map((v) => v * 3);
        const want = reference(x, K, 0.5);
        const what = `rows of ${K}, software ${cpu}`;
        assertClose(yield* run(evaluate(softmax(constant(x, [rows, K]), 0.5))), want, { what });
        assertClose(yield* run(evaluate(logSoftmax(constant(x, [rows, K]), 0.5))), want.map(Math.log), {
          what,
        });
      }
    }
  },
);

gpuTest("softmax() of huge values stays finite and sums to 1", function* () {
  const y = yield* evaluate(softmax(constant([1e4, -1e4, 1e4, 3e38, 0, -3e38], [2, 3]), 0.07));
  assertClose(y, [0.5, 0, 0.5, 1, 0, 0]);
});

gpuTest("softmax() and logSoftmax() have the gradients that finite differences give", function* () {
  for (const K of [5, 8]) {
    const x = { shape: [2, 3, K], data: numbers(6 * K) };
    yield* assertGradient((x) => softmax(x, 0.5), [x]);
    yield* assertGradient((x) => logSoftmax(x, 1), [x]);
  }
});
