import assert from "node:assert/strict";
import { resized, SIZES } from "./_test_bilinear.ts";
import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { mul } from "./arithmetic.ts";
import { gradients } from "./autodiff.ts";
import { enlargedCrossEntropy } from "./enlarged_cross_entropy.ts";
import { constant, type Tensor } from "./graph/tensor.ts";
import { sum } from "./reduce.ts";
import { evaluate } from "./runtime/program.ts";

/** Labels below K, a third of them ignored; all of the first of several images where `blank`. */
const labelsOf = (N: number, pixels: number, K: number, blank: boolean) =>
  Uint32Array.from(numbers(N * pixels, 5), (value, i) => {
    const ignored = value > 1 / 3 || (blank && i < pixels && N > 1);
    return ignored ? 255 : Math.floor((value + 1) / (4 / 3) * K) % K;
  });

/** Losses, hits and the gradient of Σ loss · slope by plain loops. */
const byLoops = (
  x: Float32Array,
  shape: readonly number[],
  labels: Uint32Array,
  slope: Float32Array,
  size: { height: number; width: number; alignCorners: boolean },
) => {
  const [, , , K] = shape;
  const z = resized(x, shape, size);
  const dz = new Float64Array(z.length);
  const loss = new Float64Array(labels.length), hits = new Float64Array(labels.length);
  labels.forEach((label, pixel) => {
    if (label === 255) return;
    const scores = z.subarray(pixel * K, (pixel + 1) * K);
    const whole = scores.reduce((sum, score) => sum + Math.exp(score), 0);
    loss[pixel] = Math.log(whole) - scores[label];
    hits[pixel] = Number(scores.indexOf(Math.max(...scores)) === label);
    scores.forEach((score, k) =>
      dz[pixel * K + k] = slope[pixel] * (Math.exp(score) / whole - Number(k === label))
    );
  });
  const unit = new Float64Array(x.length);
  const dx = Array.from(x, (_, at) => {
    unit.fill(0)[at] = 1;
    return resized(unit, shape, size).reduce((sum, value, i) => value === 0 ? sum : sum + value * dz[i], 0);
  });
  return { loss, hits, dx };
};

gpuTest("enlargedCrossEntropy() and its gradient are those of the enlarged maps", function* () {
  for (const alignCorners of [true, false]) {
    for (const [h, w, height, width] of SIZES) {
      for (const [N, K, blank] of [[2, 5, true], [1, 4, false], [1, 1, false]] as const) {
        const what = `${N}×${h}×${w}×${K} to ${height}×${width}, alignCorners ${alignCorners}`;
        const x = numbers(N * h * w * K).map((v) => 6 * v), shape = [N, h, w, K];
        const labels = labelsOf(N, height * width, K, blank), slope = numbers(labels.length, 2);
        const want = byLoops(x, shape, labels, slope, { height, width, alignCorners });
        const logits = constant(x, shape);
        const { loss, hits, counted } = enlargedCrossEntropy(
          logits,
          constant(labels, [N, height, width]),
          { alignCorners },
        );
        const [dx] = gradients(sum(mul(loss, constant(slope, loss.shape))), [logits]);
        assertClose(yield* evaluate(loss), want.loss, { rtol: 2e-6, atol: 1e-6, what: `losses, ${what}` });
        assertClose(yield* evaluate(hits), want.hits, { rtol: 0, what: `hits, ${what}` });
        assertClose(yield* evaluate(counted), [...labels].map((label) => Number(label < 255)), { rtol: 0 });
        assertClose(yield* evaluate(dx), want.dx, { rtol: 2e-6, atol: 1e-6, what: `gradient, ${what}` });
      }
    }
  }
});

gpuTest("enlargedCrossEntropy() has the gradient that finite differences give", function* () {
  const labels = constant(labelsOf(2, 63, 3, false), [2, 7, 9]);
  for (const alignCorners of [true, false]) {
    const loss = (x: Tensor) => enlargedCrossEntropy(x, labels, { alignCorners }).loss;
    yield* assertGradient(loss, [{ shape: [2, 3, 4, 3], data: numbers(72) }]);
  }
});

gpuTest("enlargedCrossEntropy() keeps large logits apart, and passes NaN on", function* () {
  const losses = (...logits: number[]) =>
    evaluate(
      enlargedCrossEntropy(constant(logits, [1, 1, 1, 3]), constant(Uint32Array.of(1), [1, 1, 1]), {
        alignCorners: false,
      }).loss,
    );
  assertClose(yield* losses(1000, 999, -1000), [Math.log(1 + Math.exp(-1)) + 1]);
  assertClose(yield* losses(-3e38, 3e38, 0), [0]);
  assert.ok(Number.isNaN((yield* losses(0, NaN, 0))[0]));
});
