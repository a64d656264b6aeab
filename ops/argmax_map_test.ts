import { assertClose, gpuTest, numbers } from "./_test_kit.ts";
import { argmaxMap } from "./argmax_map.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";

gpuTest("winnerMap() is the arg-max of bilinearly resized maps, the first of equals", function* () {
  const [N, h, w, K] = [2, 2, 4, 3];
  // Small whole numbers and powers of 2 as sizes, so that every sum is exact and ties are ties.
  const scores = numbers(N * h * w * K).map((v) => Math.round(v * 3));
  for (const [height, width] of [[4 * h, 2 * w], [h, 4 * w]]) {
    const want: number[] = [];
    for (let n = 0; n < N; n++) {
      for (let i = 0; i < height; i++) {
        for (let j = 0; j < width; j++) {
          const resized = Array.from({ length: K }, (_, k) => {
            // Every cell counts by how near it is; beyond the outermost cells the map goes on unchanged.
            const [y, x] = [
              Math.min(Math.max((i + 0.5) * h / height - 0.5, 0), h - 1),
              Math.min(Math.max((j + 0.5) * w / width - 0.5, 0), w - 1),
            ];
            let sum = 0;
            for (let a = 0; a < h; a++) {
              for (let b = 0; b < w; b++) {
                const near = Math.max(0, 1 - Math.abs(y - a)) * Math.max(0, 1 - Math.abs(x - b));
                sum += near * scores[((n * h + a) * w + b) * K + k];
              }
            }
            return sum;
          });
          want.push(resized.indexOf(Math.max(...resized)));
        }
      }
    }
    const got = yield* evaluate(argmaxMap(constant(scores, [N, h, w, K]), { height, width }));
    assertClose(got, want, { rtol: 0 });
  }
});
