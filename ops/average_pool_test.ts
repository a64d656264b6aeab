import assert from "node:assert/strict";
import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { averagePool } from "./average_pool.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";

gpuTest("averagePool() averages what lies inside the map, also where the border cuts a window", function* () {
  const [N, H, W] = [2, 7, 6];
  for (const [C, size, stride] of [[4, 2, 2], [3, 3, 2], [1, 2, 3]]) {
    const x = numbers(N * H * W * C);
    const want: number[] = [];
    for (let n = 0; n < N; n++) {
      for (let top = 0; top === 0 || (top < H && top + size < H + stride); top += stride) {
        for (let left = 0; left === 0 || (left < W && left + size < W + stride); left += stride) {
          for (let c = 0; c < C; c++) {
            const inside: number[] = [];
            for (let h = top; h < Math.min(top + size, H); h++) {
              for (let w = left; w < Math.min(left + size, W); w++) {
                inside.push(x[((n * H + h) * W + w) * C + c]);
              }
            }
            want.push(inside.reduce((a, b) => a + b) / inside.length);
          }
        }
      }
    }
    assertClose(yield* evaluate(averagePool(constant(x, [N, H, W, C]), { size, stride })), want);
  }
});

gpuTest("averagePool() of a map smaller than its window is the mean of the map", function* () {
  const y = averagePool(constant([1, 2, 6], [1, 1, 3, 1]), { size: 4, stride: 2 });
  assert.deepEqual(y.shape, [1, 1, 1, 1]);
  assertClose(yield* evaluate(y), [3]);
});

gpuTest("averagePool() has the gradient that finite differences give", function* () {
  for (const C of [4, 3]) {
    const x = { shape: [2, 5, 4, C], data: numbers(40 * C) };
    yield* assertGradient((x) => averagePool(x, { size: 2, stride: 2 }), [x], { probes: 12 });
    yield* assertGradient((x) => averagePool(x, { size: 3, stride: 2 }), [x], { probes: 12 });
  }
});
