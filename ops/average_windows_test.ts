import assert from "node:assert/strict";
import { resized } from "./_test_bilinear.ts";
import { assertClose, gpuTest, numbers } from "./_test_kit.ts";
import { averageWindows } from "./average_windows.ts";
import { ShapeError } from "./graph/shape.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";

gpuTest("averageWindows() enlarges every window and averages those that cover a pixel", function* () {
  const [h, w, windowHeight, windowWidth, height, width] = [3, 4, 7, 9, 11, 20];
  const origins = [0, 4].flatMap((top) => [0, 6, 11].map((left) => [top, left] as const));
  for (const alignCorners of [true, false]) {
    for (const K of [3, 4]) {
      const maps = numbers(origins.length * h * w * K);
      const sums = new Float64Array(height * width * K), counts = new Float64Array(height * width);
      origins.forEach(([top, left], n) => {
        const window = resized(maps.subarray(n * h * w * K, (n + 1) * h * w * K), [1, h, w, K], {
          ...{ height: windowHeight, width: windowWidth, alignCorners },
        });
        for (let i = 0; i < windowHeight * windowWidth; i++) {
          const pixel = (top + Math.floor(i / windowWidth)) * width + left + i % windowWidth;
          counts[pixel]++;
          for (let k = 0; k < K; k++) sums[pixel * K + k] += window[i * K + k];
        }
      });
      const mean = averageWindows(constant(maps, [origins.length, h, w, K]), {
        ...{ origins, windowHeight, windowWidth, height, width, alignCorners },
      });
      assertClose(yield* evaluate(mean), sums.map((sum, i) => sum / counts[Math.floor(i / K)]), {
        rtol: 1e-6,
        what: `${K} classes, alignCorners ${alignCorners}`,
      });
    }
  }
});

Deno.test("averageWindows() refuses windows beyond the image, and a number of maps that is not theirs", () => {
  const maps = constant(new Float32Array(8), [2, 2, 2, 1]);
  const size = { windowHeight: 4, windowWidth: 4, height: 4, width: 6, alignCorners: false };
  for (const origins of [[[0, 0]], [[0, 0], [0, 3]], [[0, 0], [1, 0]], [[0, 0], [-1, 2]]]) {
    assert.throws(
      () => averageWindows(maps, { ...size, origins: origins as unknown as [number, number][] }),
      ShapeError,
    );
  }
});
