import { resized, SIZES } from "./_test_bilinear.ts";
import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { gradients } from "./autodiff.ts";
import { mul } from "./arithmetic.ts";
import { constant } from "./graph/tensor.ts";
import { sum } from "./reduce.ts";
import { resizeBilinear } from "./resize_bilinear.ts";
import { evaluate } from "./runtime/program.ts";

const BOTH = [true, false];

gpuTest(
  "resizeBilinear() weighs the cells around every pixel, and its gradient is the transpose",
  function* () {
    for (const alignCorners of BOTH) {
      for (const [h, w, height, width] of SIZES) {
        for (const [N, C] of [[2, 3], [1, 4]]) {
          const what = `${N}×${h}×${w}×${C} to ${height}×${width}, alignCorners ${alignCorners}`;
          const resizing = { height, width, alignCorners };
          const shape = [N, h, w, C];
          const x = numbers(N * h * w * C), slope = numbers(N * height * width * C, 2);
          const tensor = constant(x, shape);
          const y = resizeBilinear(tensor, resizing);
          assertClose(yield* evaluate(y), resized(x, shape, resizing), { rtol: 1e-6, what });
          const [dx] = gradients(sum(mul(y, constant(slope, y.shape))), [tensor]);
          const unit = new Float64Array(x.length);
          const want = Array.from(x, (_, at) => {
            unit.fill(0)[at] = 1;
            return resized(unit, shape, resizing).reduce((sum, value, i) => sum + value * slope[i], 0);
          });
          assertClose(yield* evaluate(dx), want, { rtol: 1e-6, atol: 1e-6, what: `the gradient, ${what}` });
        }
      }
    }
  },
);

gpuTest("resizeBilinear() has the gradient that finite differences give", function* () {
  for (const alignCorners of BOTH) {
    const x = { shape: [2, 3, 4, 3], data: numbers(72) };
    yield* assertGradient((x) => resizeBilinear(x, { height: 7, width: 9, alignCorners }), [x]);
  }
});
