import assert from "node:assert/strict";
import { Effect } from "effect";
import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { batchMoments, batchNorm, batchNormByRunning, runningAfter } from "./batch_norm.ts";
import { lower } from "./compiler/lower.ts";
import { sizeOf } from "./graph/shape.ts";
import { constant, reshape } from "./graph/tensor.ts";
import { matmul } from "./matmul.ts";
import { Gpu } from "./runtime/gpu.ts";
import { compile, evaluate } from "./runtime/program.ts";
import { slice } from "./slice.ts";

const [G, R, C] = [2, 37, 8];
// A mean far above the deviation, where the textbook formula E[x²] − E[x]² would lose all digits.
const xs = numbers(G * R * C).map((v, i) => v + 300 * (i % C));
const weight = numbers(C, 2), bias = numbers(C, 3);

const momentsOf = (x: Float32Array, first: number, rows: number, c: number) => {
  const column = Array.from({ length: rows }, (_, r) => x[(first + r) * C + c]);
  const mean = column.reduce((a, b) => a + b) / rows;
  return [mean, column.reduce((a, b) => a + (b - mean) ** 2, 0) / rows];
};

gpuTest("batchNorm() normalises each group by its own rows", function* () {
  const x = constant(xs, [G, R, C]);
  const got = yield* evaluate(batchNorm(x, constant(weight), constant(bias), batchMoments(x)));
  const want = xs.map((v, i) => {
    const c = i % C, g = Math.floor(i / C / R);
    const [mean, variance] = momentsOf(xs, g * R, R, c);
    return (v - mean) / Math.sqrt(variance + 1e-5) * weight[c] + bias[c];
  });
  assertClose(got, want, { rtol: 1e-4 });
});

for (const [rows, from] of [[48, "sumsOfMoments"], [R, "columnSums"]] as const) {
  gpuTest(`batchMoments() of a product with ${rows} rows a group come from its ${from}`, function* () {
    const { traits } = yield* Gpu;
    const data = numbers(G * rows * C).map((v, i) => v + 300 * (i % C));
    const one = Float32Array.from({ length: C * C }, (_, i) => i % (C + 1) === 0 ? 1 : 0);
    const y = matmul(constant(data, [G * rows, C]), constant(one, [C, C])); // the same numbers, but by a product
    const { values } = batchMoments(reshape(y, [G, rows, C]));
    const graph = { label: "moments", outputs: { values } };
    for (const cpu of [true, false]) {
      const names = lower(graph, { ...traits, cpu }, () => false).kernels.map(({ label }) => label);
      assert.deepEqual(names.filter((name) => /^sumsOf|^columnSums/.test(name)), [from]);
      const program = yield* compile(graph, new Map(), { ...traits, cpu });
      const got = (yield* Effect.flatten(program.run({}))).values;
      for (let g = 0; g < G; g++) {
        for (let c = 0; c < C; c++) {
          const want = momentsOf(data, g * rows, rows, c);
          const found = [0, 1].map((term) => got[(2 * g + term) * C + c]);
          want.forEach((moment, term) => assertClose([found[term]], [moment], { rtol: 1e-4 }));
        }
      }
    }
  });
}

gpuTest("batchNorm() with a count takes only the first rows into account", function* () {
  const count = 11;
  const data = xs.slice(0, R * C).fill(NaN, count * C);
  const x = constant(data, [1, R, C]), rows = constant(Uint32Array.of(count));
  const y = batchNorm(x, constant(weight), constant(bias), batchMoments(x, rows), rows);
  const got = yield* evaluate(slice(y, 1, 0, count));
  const want = Array.from({ length: count * C }, (_, i) => {
    const [mean, variance] = momentsOf(data, 0, count, i % C);
    return (data[i] - mean) / Math.sqrt(variance + 1e-5) * weight[i % C] + bias[i % C];
  });
  assertClose(got, want, { rtol: 1e-4 });
});

gpuTest(
  "runningAfter() moves by a tenth towards each group's mean and unbiased variance in turn",
  function* () {
    const before = new Float32Array(3 * C).fill(1, C, 2 * C).fill(6, 2 * C);
    const got = yield* evaluate(
      runningAfter(constant(before, [3, C]), batchMoments(constant(xs, [G, R, C]))),
    );
    const want = before.slice();
    for (let g = 0; g < G; g++) {
      for (let c = 0; c < C; c++) {
        const [mean, variance] = momentsOf(xs, g * R, R, c);
        want[c] = 0.9 * want[c] + 0.1 * mean;
        want[C + c] = 0.9 * want[C + c] + 0.1 * variance * R / (R - 1);
        want[2 * C + c] += 1;
      }
    }
    assertClose(got, want, { rtol: 1e-6 });
  },
);

gpuTest("batchNorm() has the gradients that finite differences give", function* () {
  yield* assertGradient((x, w, b) => batchNorm(x, w, b, batchMoments(x)), [
    { shape: [2, 5, 4], data: numbers(40) },
    { shape: [4], data: numbers(4, 2) },
    { shape: [4], data: numbers(4, 3) },
  ]);
});

gpuTest("batchNormByRunning() has the gradient that finite differences give", function* () {
  const running = constant(numbers(15, 4).map((value) => value + 1.5), [3, 5]);
  yield* assertGradient(
    (x, weight, bias) => batchNormByRunning(x, weight, bias, running),
    [[2, 3, 5], [5], [5]].map((shape, i) => ({ shape, data: numbers(sizeOf(shape), i + 1) })),
  );
});
