import assert from "node:assert/strict";
import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { constant } from "./graph/tensor.ts";
import { matmul, matmulTransposed } from "./matmul.ts";
import { evaluate } from "./runtime/program.ts";
import { slice } from "./slice.ts";

const product = (a: Float32Array, b: Float32Array, batch: number, M: number, K: number, N: number) => {
  const y = new Float64Array(batch * M * N);
  for (let t = 0; t < batch; t++) {
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) {
        for (let k = 0; k < K; k++) {
          y[(t * M + m) * N + n] += a[(t * M + m) * K + k] * b[(t * K + k) * N + n];
        }
      }
    }
  }
  return y;
};

gpuTest("matmul() and matmulTransposed() multiply, batched or not, whatever the sizes", function* () {
  for (
    const [batch, M, K, N] of [[1, 33, 20, 24], [3, 7, 5, 6], [2, 64, 49, 32], [1, 4, 600, 4], [
      1,
      301,
      1100,
      20,
    ]]
  ) {
    const a = numbers(batch * M * K), b = numbers(batch * K * N, 2);
    const want = product(a, b, batch, M, K, N);
    const B = constant(b, [batch, K, N]);
    assertClose(yield* evaluate(matmul(constant(a, [batch, M, K]), B)), want, { rtol: 1e-6 });
    const turned = new Float32Array(a.length);
    for (let t = 0; t < batch; t++) {
      for (let m = 0; m < M; m++) {
        for (let k = 0; k < K; k++) {
          turned[(t * K + k) * M + m] = a[(t * M + m) * K + k];
        }
      }
    }
    assertClose(yield* evaluate(matmulTransposed(constant(turned, [batch, K, M]), B)), want, { rtol: 1e-6 });
  }
});

gpuTest("matmul() and matmulTransposed() have the gradients that finite differences give", function* () {
  const a = { shape: [2, 6, 8], data: numbers(96) }, b = { shape: [2, 8, 12], data: numbers(192, 2) };
  yield* assertGradient(matmul, [a, b], { step: 0.5, rtol: 2e-3 });
  const c = { shape: [2, 6, 5], data: numbers(60, 3) };
  yield* assertGradient(matmulTransposed, [a, c], { step: 0.5, rtol: 2e-3 });
});

gpuTest("matmul() with a count uses the first rows only, whatever lies in the others", function* () {
  const [R, K, N, count] = [70, 8, 12, 41];
  const a = numbers(R * K), b = numbers(K * N, 2), d = numbers(R * N, 3);
  a.fill(NaN, count * K);
  d.fill(NaN, count * N);
  const rows = constant(Uint32Array.of(count));
  const y = yield* evaluate(slice(matmul(constant(a, [R, K]), constant(b, [K, N]), rows), 0, 0, count));
  assertClose(y, product(a, b, 1, count, K, N), { rtol: 1e-6 });
  const t = yield* evaluate(matmulTransposed(constant(a, [R, K]), constant(d, [R, N]), rows));
  assert.ok(t.every(Number.isFinite));
  const turned = Float32Array.from(
    { length: K * count },
    (_, i) => a[(i % count) * K + Math.floor(i / count)],
  );
  assertClose(t, product(turned, d, 1, K, count, N), { rtol: 1e-6 });
});
