import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { conv2d } from "./conv2d.ts";
import { constant } from "./graph/tensor.ts";
import { type Convolution, outputSize } from "./kernels/convolution.ts";
import { evaluate } from "./runtime/program.ts";

/** The definition, as loops. */
const reference = (
  x: Float32Array,
  [N, H, W, C]: number[],
  w: Float32Array,
  [KH, KW, I, O]: number[],
  c: Convolution,
) => {
  const OH = outputSize(H, KH, c), OW = outputSize(W, KW, c);
  const y = new Float64Array(N * OH * OW * O);
  for (let n = 0; n < N; n++) {
    for (let oy = 0; oy < OH; oy++) {
      for (let ox = 0; ox < OW; ox++) {
        for (let o = 0; o < O; o++) {
          const group = Math.floor(o / (O / c.groups));
          for (let ky = 0; ky < KH; ky++) {
            for (let kx = 0; kx < KW; kx++) {
              for (let i = 0; i < I; i++) {
                const iy = oy * c.stride - c.pad + ky * c.dilation,
                  ix = ox * c.stride - c.pad + kx * c.dilation;
                if (iy < 0 || ix < 0 || iy >= H || ix >= W) continue;
                y[((n * OH + oy) * OW + ox) * O + o] += x[((n * H + iy) * W + ix) * C + group * I + i] *
                  w[((ky * KW + kx) * I + i) * O + o];
              }
            }
          }
        }
      }
    }
  }
  return y;
};

const cases: { name: string; x: number[]; w: number[]; c: Partial<Convolution> }[] = [
  { name: "3×3", x: [2, 7, 6, 8], w: [3, 3, 8, 12], c: { pad: 1 } },
  { name: "7×7 of stride 2 on three channels", x: [2, 35, 34, 3], w: [7, 7, 3, 8], c: { stride: 2, pad: 3 } },
  { name: "3×3 of stride 2", x: [2, 9, 8, 4], w: [3, 3, 4, 16], c: { stride: 2, pad: 1 } },
  { name: "dilated 3×3", x: [1, 8, 9, 4], w: [3, 3, 4, 4], c: { pad: 2, dilation: 2 } },
  { name: "grouped 3×3", x: [2, 6, 5, 16], w: [3, 3, 4, 16], c: { pad: 1, groups: 4 } },
  { name: "odd channel counts, 1×1 of stride 2", x: [2, 7, 7, 5], w: [1, 1, 5, 7], c: { stride: 2 } },
  { name: "1×1", x: [2, 5, 5, 8], w: [1, 1, 8, 4], c: {} },
  // Enough rows for the software adapter's panels, and of K more than one.
  { name: "many pixels", x: [2, 13, 14, 132], w: [3, 3, 132, 20], c: { pad: 1 } },
  { name: "many pixels of stride 2", x: [2, 34, 32, 8], w: [3, 3, 8, 64], c: { stride: 2, pad: 1 } },
];

for (const { name, x, w, c } of cases) {
  const convolution = { stride: 1, pad: 0, dilation: 1, groups: 1, ...c };
  const xs = numbers(x.reduce((a, b) => a * b)), ws = numbers(w.reduce((a, b) => a * b), 2);

  gpuTest(`conv2d() ${name} gives what the definition gives`, function* () {
    const got = yield* evaluate(conv2d(constant(xs, x), constant(ws, w), c));
    assertClose(got, reference(xs, x, ws, w, convolution), { rtol: 1e-6 });
  });

  gpuTest(`conv2d() ${name} has the gradients that finite differences give`, function* () {
    // Linear in each input: a large step costs no accuracy.
    yield* assertGradient((x, w) => conv2d(x, w, c), [{ shape: x, data: xs }, { shape: w, data: ws }], {
      step: 0.5,
      rtol: 2e-3,
    });
  });
}
