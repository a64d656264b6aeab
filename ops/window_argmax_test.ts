import assert from "node:assert/strict";
import { resized } from "./_test_bilinear.ts";
import { gpuTest, numbers } from "./_test_kit.ts";
import { constant } from "./graph/tensor.ts";
import { ShapeError } from "./graph/shape.ts";
import { evaluate } from "./runtime/program.ts";
import { windowArgmax, type WindowLayout } from "./window_argmax.ts";

/** The scores at the original size, by plain loops: [height, width, K]. */
const scoresOf = (logits: Float32Array, [n, h, w, K]: readonly number[], layout: WindowLayout) => {
  const { windows, window: [windowHeight, windowWidth], image: [H, W], original, alignCorners } = layout;
  const sums = new Float64Array(H * W * K), counts = new Float64Array(H * W * K);
  const enlarged = resized(logits, [n, h, w, K], {
    height: windowHeight,
    width: windowWidth,
    alignCorners,
  });
  enlarged.forEach((value, at) => {
    const k = at % K,
      x = Math.floor(at / K) % windowWidth,
      y = Math.floor(at / K / windowWidth) % windowHeight;
    const [top, left] = windows[Math.floor(at / K / windowWidth / windowHeight)];
    const to = ((top + y) * W + left + x) * K + k;
    sums[to] += value;
    counts[to]++;
  });
  const averaged = sums.map((sum, i) => sum / counts[i]);
  return resized(averaged, [1, H, W, K], { height: original[0], width: original[1], alignCorners });
};

gpuTest("windowArgmax() averages the enlarged scores of windows, and resizes them once more", function* () {
  const layouts: (Omit<WindowLayout, "alignCorners" | "rows"> & { map: readonly [number, number] })[] = [
    { windows: [[0, 0]], window: [13, 17], image: [13, 17], original: [29, 11], map: [3, 4] },
    {
      ...{ windows: [[0, 0], [0, 5], [4, 0], [4, 5]], window: [8, 9], image: [12, 14] },
      ...{ original: [7, 20] as const, map: [2, 3] as const },
    },
  ];
  for (const { map: [h, w], ...layout } of layouts) {
    for (const alignCorners of [true, false]) {
      for (const K of [1, 3, 4, 10]) {
        const shape = [layout.windows.length, h, w, K];
        const [height, width] = layout.original;
        const logits = numbers(shape.reduce((a, b) => a * b));
        const whole = { ...layout, alignCorners, rows: height };
        const scores = scoresOf(logits, shape, whole);
        const found = yield* evaluate(
          windowArgmax(constant(logits, shape), constant(Uint32Array.of(0)), whole),
        );
        assert.equal(found.length, height * width);
        found.forEach((winner, i) => {
          const own = scores.subarray(i * K, (i + 1) * K);
          assert.ok(own[winner] >= Math.max(...own) - 1e-6, `pixel ${i}: ${winner} of ${own}`);
        });

        const band = windowArgmax(constant(logits, shape), constant(Uint32Array.of(height - 2)), {
          ...whole,
          rows: 3,
        });
        const rows = [height - 2, height - 1, height - 1];
        const want = rows.flatMap((row) => [...found.subarray(row * width, (row + 1) * width)]);
        assert.deepEqual([...yield* evaluate(band)], want);
      }
    }
  }
});

Deno.test("windowArgmax() refuses scores of other windows than those of the layout", () => {
  const layout: WindowLayout = {
    ...{ windows: [[0, 0], [0, 2]], window: [4, 4], image: [4, 6], original: [4, 6], rows: 4 },
    alignCorners: true,
  };
  const first = constant(Uint32Array.of(0));
  assert.throws(() => windowArgmax(constant(numbers(8), [1, 2, 2, 2]), first, layout), ShapeError);
});
