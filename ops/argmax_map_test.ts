import { resized } from "./_test_bilinear.ts";
import { assertClose, gpuTest, numbers } from "./_test_kit.ts";
import { argmaxMap } from "./argmax_map.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";

gpuTest("argmaxMap() is the arg-max of bilinearly resized maps, the first of equals", function* () {
  const shape = [2, 2, 4, 3];
  const [, h, w, K] = shape;
  // Small whole numbers and powers of 2 as shares, so that every sum is exact and ties are ties.
  const scores = numbers(48).map((v) => Math.round(v * 3));
  for (
    const [height, width, alignCorners] of [[4 * h, 2 * w, false], [h, 4 * w, false], [5, 13, true]] as const
  ) {
    const maps = resized(scores, shape, { height, width, alignCorners });
    const want = Array.from({ length: maps.length / K }, (_, pixel) => {
      const resized = [...maps.subarray(pixel * K, (pixel + 1) * K)];
      return resized.indexOf(Math.max(...resized));
    });
    const got = yield* evaluate(argmaxMap(constant(scores, shape), { height, width, alignCorners }));
    assertClose(got, want, { rtol: 0 });
  }
});
