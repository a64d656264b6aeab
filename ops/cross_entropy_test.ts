import { Effect } from "effect";
import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { mul } from "./arithmetic.ts";
import { gradients } from "./autodiff.ts";
import { crossEntropyRows } from "./cross_entropy.ts";
import { constant } from "./graph/tensor.ts";
import { sum } from "./reduce.ts";
import { Gpu } from "./runtime/gpu.ts";
import { evaluate } from "./runtime/program.ts";

const used = (count: number) => constant(Uint32Array.of(count));

gpuTest(
  "crossEntropyRows() and its gradient agree with loops and ignore unused rows and columns",
  function* () {
    const gpu = yield* Gpu;
    for (const cpu of [true, false]) {
      const run = Effect.provideService(Gpu, { ...gpu, traits: { ...gpu.traits, cpu } });
      for (const [R, C, rows, columns] of [[5, 7, 3, 4], [4, 300, 4, 299], [3, 5, 0, 0], [2, 4, 2, 4]]) {
        const x = numbers(R * C).map((v) => v * 8);
        const labels = Uint32Array.from(
          { length: R },
          (_, r) => r < rows ? (r * 5 + 2) % columns : 0xffffffff,
        );
        const weights = numbers(R, 3);
        const losses = new Float64Array(R), slopes = new Float64Array(R * C);
        for (let r = 0; r < rows; r++) {
          const exps = [...x.subarray(r * C, r * C + columns)].map(Math.exp);
          const total = exps.reduce((a, b) => a + b);
          losses[r] = -Math.log(exps[labels[r]] / total);
          exps.forEach((e, c) => slopes[r * C + c] = weights[r] * (e / total - (c === labels[r] ? 1 : 0)));
        }
        x.forEach((_, i) => {
          if (i >= rows * C || i % C >= columns) x[i] = [NaN, Infinity, -Infinity][i % 3];
        });
        const logits = constant(x, [R, C]);
        const loss = crossEntropyRows(logits, constant(labels), used(rows), used(columns));
        const [dx] = gradients(sum(mul(loss, constant(weights))), [logits]);
        const what = `${R} × ${C}, software ${cpu}`;
        assertClose(yield* run(evaluate(loss)), losses, { atol: 1e-6, what });
        assertClose(yield* run(evaluate(dx)), slopes, { atol: 1e-6, what });
      }
    }
  },
);

gpuTest("crossEntropyRows() has the gradient that finite differences give", function* () {
  const labels = constant(Uint32Array.of(2, 0, 3));
  const loss = (x: ReturnType<typeof constant>) => crossEntropyRows(x, labels, used(2), used(4));
  yield* assertGradient(loss, [{ shape: [3, 5], data: numbers(15) }], { probes: 12 });
});
