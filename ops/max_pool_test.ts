import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { gradients } from "./autodiff.ts";
import { constant } from "./graph/tensor.ts";
import { maxPool } from "./max_pool.ts";
import { sum } from "./reduce.ts";
import { evaluate } from "./runtime/program.ts";

gpuTest("maxPool() takes the largest value of every window, whatever the padding would hold", function* () {
  for (const [C, size, stride, pad] of [[4, 3, 2, 1], [3, 3, 2, 1], [4, 2, 2, 0], [1, 3, 1, 1]]) {
    const [N, H, W] = [2, 7, 6];
    const x = numbers(N * H * W * C).map((v) => v - 2); // all negative: zeros of a padding would win
    const want: number[] = [];
    for (let n = 0; n < N; n++) {
      for (let top = -pad; top + size <= H + pad; top += stride) {
        for (let left = -pad; left + size <= W + pad; left += stride) {
          for (let c = 0; c < C; c++) {
            let best = -Infinity;
            for (let h = Math.max(top, 0); h < Math.min(top + size, H); h++) {
              for (let w = Math.max(left, 0); w < Math.min(left + size, W); w++) {
                best = Math.max(best, x[((n * H + h) * W + w) * C + c]);
              }
            }
            want.push(best);
          }
        }
      }
    }
    assertClose(yield* evaluate(maxPool(constant(x, [N, H, W, C]), { size, stride, pad })), want, {
      rtol: 0,
    });
  }
});

gpuTest("maxPool() gives the gradient of a tie to the first of its equals in row-major order", function* () {
  const x = constant([0, 0, 0, 0, 0, 0, 5, 5, 0, 5, 0, 0, 0, 0, 0, 0], [1, 4, 4, 1]);
  const [dx] = gradients(sum(maxPool(x, { size: 3, stride: 2, pad: 1 })), [x]);
  assertClose(yield* evaluate(dx), [1, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
});

gpuTest("maxPool() has the gradient that finite differences give", function* () {
  for (const C of [4, 3]) {
    // A permutation of 0, 0.1, 0.2, …: no two values are within a step of each other.
    const data = numbers(2 * 5 * 6 * C);
    const order = [...data.keys()].sort((a, b) => data[a] - data[b]);
    order.forEach((at, rank) => data[at] = rank / 10);
    const x = { shape: [2, 5, 6, C], data };
    yield* assertGradient((x) => maxPool(x, { size: 3, stride: 2, pad: 1 }), [x], { probes: 12 });
  }
});
