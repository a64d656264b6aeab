import assert from "node:assert/strict";
import { Effect } from "effect";
import { assertClose, assertGradient, gpuTest, numbers, random } from "./_test_kit.ts";
import { add, div, mul, relu, rsqrt, sub } from "./arithmetic.ts";
import { gelu } from "./gelu.ts";
import { constant, reshape } from "./graph/tensor.ts";
import { columnSums, mean, rowSums, sumTo, totals } from "./reduce.ts";
import { Gpu } from "./runtime/gpu.ts";
import { evaluate } from "./runtime/program.ts";
import { slice, transpose } from "./slice.ts";

gpuTest("a fused chain over broadcast inputs gives what the formula gives", function* () {
  for (const C of [3, 8]) {
    const x = random([2, 5, 3, C]), scale = random([C], 2), perGroup = random([2, 1, 1, 1], 3);
    const y = yield* evaluate(relu(add(mul(sub(x, perGroup), scale), 0.25)));
    const [xs, ss, gs] = [numbers(30 * C), numbers(C, 2), numbers(2, 3)];
    const want = xs.map((v, i) => Math.max((v - gs[Math.floor(i / (15 * C))]) * ss[i % C] + 0.25, 0));
    assertClose(y, want, { rtol: 1e-6 });
  }
});

gpuTest("sums over rows, over columns and over everything agree with loops", function* () {
  const shape = [2, 700, 12];
  const data = numbers(2 * 700 * 12);
  const x = constant(data, shape);
  const columns = yield* evaluate(columnSums([x, mul(x, x)]));
  const rows = yield* evaluate(rowSums([x]));
  const all = yield* evaluate(totals([x, mul(x, x)]));
  const wantColumns = new Float64Array(48), wantRows = new Float64Array(1400), wantAll = new Float64Array(2);
  data.forEach((v, i) => {
    const g = Math.floor(i / 8400), c = i % 12;
    wantColumns[g * 24 + c] += v;
    wantColumns[g * 24 + 12 + c] += v * v;
    wantRows[Math.floor(i / 12)] += v;
    wantAll[0] += v;
    wantAll[1] += v * v;
  });
  assertClose(columns, wantColumns);
  assertClose(rows, wantRows);
  assertClose(all, wantAll);
});

gpuTest("sums over long rows agree with loops on both kinds of adapter", function* () {
  const gpu = yield* Gpu;
  const [rows, K] = [7, 516];
  const data = numbers(rows * K);
  const x = constant(data, [rows, K]);
  const row = (r: number) => [...data.subarray(r * K, r * K + K)];
  const want = [...new Array(rows).keys()].flatMap((r) => [
    row(r).reduce((total, v) => total + v, 0),
    row(r).reduce((total, v) => total + v * v, 0),
  ]);
  for (const cpu of [true, false]) {
    const run = Effect.provideService(Gpu, { ...gpu, traits: { ...gpu.traits, cpu } });
    assertClose(yield* run(evaluate(rowSums([x, mul(x, x)]))), want, { what: `software ${cpu}` });
  }
});

gpuTest("slice() and transpose() read the right elements, also within a fused chain", function* () {
  const data = numbers(2 * 3 * 4);
  const x = constant(data, [2, 3, 4]);
  const y = yield* evaluate(add(transpose(slice(x, 1, 1, 2), [2, 0, 1]), 1));
  const want: number[] = [];
  for (let c = 0; c < 4; c++) {
    for (let a = 0; a < 2; a++) for (let b = 1; b < 3; b++) want.push(data[a * 12 + b * 4 + c] + 1);
  }
  assertClose(y, want, { rtol: 1e-6 });
});

gpuTest("sumTo() undoes broadcasting", function* () {
  const data = numbers(2 * 3 * 4);
  const got = yield* evaluate(sumTo(constant(data, [2, 3, 4]), [3, 1]));
  const want = [0, 0, 0];
  data.forEach((v, i) => want[Math.floor(i / 4) % 3] += v);
  assertClose(got, want);
});

gpuTest("elementwise ops have the gradients that finite differences give", function* () {
  const x = { shape: [2, 3, 4], data: numbers(24).map((v) => v + (v > 0 ? 0.2 : -0.2)) };
  const positive = { shape: [3, 1], data: numbers(3, 5).map((v) => Math.abs(v) + 0.5) };
  yield* assertGradient((a, b) => relu(div(mul(a, add(a, 2)), b)), [x, positive]);
  yield* assertGradient((a, b) => sub(gelu(a), mul(rsqrt(b), a)), [x, positive]);
  yield* assertGradient((a) => mul(slice(transpose(a, [1, 0, 2]), 0, 1, 2), mean(a)), [x]);
  yield* assertGradient((a) => mul(rowSums([mul(a, a), a]), 2), [x]);
  yield* assertGradient((a) => columnSums([reshape(a, [1, 6, 4])]), [x]);
});

gpuTest("gelu() is x·Φ(x) to 2e-7", function* () {
  const xs = [-6, -3, -1, -0.5, 0, 0.5, 1, 3, 6];
  const got = yield* evaluate(gelu(constant(xs)));
  const want = [-5.9192e-9, -0.0040496943, -0.15865525, -0.15426877, 0, 0.34573123, 0.84134475, 2.9959503, 6];
  xs.forEach((x, i) =>
    assert.ok(Math.abs(got[i] - want[i]) < 2e-7 * Math.max(1, Math.abs(x)), `${x}: ${got[i]}`)
  );
});
