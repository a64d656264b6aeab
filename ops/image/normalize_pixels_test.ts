import assert from "node:assert/strict";
import { gpuTest, numbers } from "../_test_kit.ts";
import { constant } from "../graph/tensor.ts";
import { evaluate } from "../runtime/program.ts";
import { labelBytes } from "./label_bytes.ts";
import { normalizeBytes } from "./normalize_pixels.ts";

gpuTest(
  "normalizeBytes() rounds as OpenCV does, and gives 0 outside of an image's content; labelBytes() gives the rest",
  function* () {
    const [N, H, W] = [3, 5, 7];
    const words = Uint32Array.from(numbers(N * H * W), (value) => (value + 1) * 2 ** 31);
    const sizes = [[5, 7], [3, 7], [4, 2]];
    const pixels = constant(words, [N, H, W]);
    const f = Math.fround;
    for (
      const { mean, std } of [
        { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] },
        { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
      ] as const
    ) {
      const want = (inside: (n: number, y: number, x: number) => boolean) =>
        Array.from(words).flatMap((word, at) => {
          const [n, y, x] = [Math.floor(at / W / H), Math.floor(at / W) % H, at % W];
          return [0, 8, 16].map((shift, c) =>
            inside(n, y, x) ? f(f((word >>> shift & 255) - f(mean[c])) * (1 / f(std[c]))) : 0
          );
        });
      const whole = yield* evaluate(normalizeBytes(pixels, { mean, std }));
      assert.deepEqual([...whole], want(() => true));
      const padded = yield* evaluate(
        normalizeBytes(pixels, { mean, std }, constant(Uint32Array.from(sizes.flat()), [N, 2])),
      );
      assert.deepEqual([...padded], want((n, y, x) => y < sizes[n][0] && x < sizes[n][1]));
    }
    assert.deepEqual([...yield* evaluate(labelBytes(pixels))], [...words].map((word) => word >>> 24));
  },
);
