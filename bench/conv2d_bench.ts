import { numbers } from "../ops/_test_kit.ts";
import { conv2d } from "../ops/conv2d.ts";
import { sizeOf } from "../ops/graph/shape.ts";
import { constant, type Tensor } from "../ops/graph/tensor.ts";
import { outputSize } from "../ops/kernels/convolution.ts";
import { opBench } from "./_kit.ts";
import { pulledBack } from "./_pulled_back.ts";

/** A convolution of N maps of side² pixels, with kernels of taps² pixels. */
interface Case {
  readonly N: number;
  readonly side: number;
  readonly C: number;
  readonly O: number;
  readonly taps: number;
  readonly stride: number;
}

/** Those of a ResNet-50 on pictures of 224 pixels: its first one, and the two kinds that most of its time goes to. */
const cases: readonly Case[] = [
  { N: 8, side: 56, C: 64, O: 64, taps: 3, stride: 1 },
  { N: 8, side: 56, C: 256, O: 64, taps: 1, stride: 1 },
  { N: 8, side: 224, C: 3, O: 64, taps: 7, stride: 2 },
];

for (const { N, side, C, O, taps, stride } of cases) {
  const pad = (taps - 1) / 2;
  const out = outputSize(side, taps, { stride, pad, dilation: 1, groups: 1 });
  const xShape = [N, side, side, C], wShape = [taps, taps, C, O], yShape = [N, out, out, O];
  const name = `conv2d ${taps}×${taps}${stride > 1 ? ` / ${stride}` : ""} ${C}→${O}, ${N}×${side}²`;
  const work = { flops: 2 * sizeOf(yShape) * taps * taps * C };

  const define = () => {
    const [x, w, dy] = [xShape, wShape, yShape].map((shape, i) => numbers(sizeOf(shape), i));
    const [X, W, dY] = [constant(x, xShape), constant(w, wShape), constant(dy, yShape)];
    return { x, w, dy, dY, y: conv2d(X, W, { stride, pad }) };
  };
  const span = [...new Array(taps).keys()];

  opBench(name, work, () => {
    const { x, w, y } = define();
    const expected = (at: number) => {
      const [n, oy, ox, o] = places(at, yShape);
      let sum = 0;
      for (const ky of span) {
        for (const kx of span) {
          const iy = oy * stride - pad + ky, ix = ox * stride - pad + kx;
          if (iy < 0 || iy >= side || ix < 0 || ix >= side) continue;
          for (let i = 0; i < C; i++) {
            sum += x[((n * side + iy) * side + ix) * C + i] * w[((ky * taps + kx) * C + i) * O + o];
          }
        }
      }
      return sum;
    };
    return [{ result: y, expected }];
  });

  // Nothing asks for the gradient with respect to a picture.
  if (C > 3) {
    opBench(`${name}, input gradient`, work, () => {
      const { w, dy, dY, y } = define();
      const expected = (at: number) => {
        const [n, iy, ix, i] = places(at, xShape);
        let sum = 0;
        for (const ky of span) {
          for (const kx of span) {
            const oy = (iy + pad - ky) / stride, ox = (ix + pad - kx) / stride;
            if (oy < 0 || oy >= out || ox < 0 || ox >= out || oy % 1 !== 0 || ox % 1 !== 0) continue;
            for (let o = 0; o < O; o++) {
              sum += dy[((n * out + oy) * out + ox) * O + o] * w[((ky * taps + kx) * C + i) * O + o];
            }
          }
        }
        return sum;
      };
      return [{ result: pulledBack(y, dY)[0] as Tensor, expected }];
    });
  }

  opBench(`${name}, weight gradient`, work, () => {
    const { x, dy, dY, y } = define();
    const expected = (at: number) => {
      const [ky, kx, i, o] = places(at, wShape);
      let sum = 0;
      for (let n = 0; n < N; n++) {
        for (let oy = 0; oy < out; oy++) {
          const iy = oy * stride - pad + ky;
          if (iy < 0 || iy >= side) continue;
          for (let ox = 0; ox < out; ox++) {
            const ix = ox * stride - pad + kx;
            if (ix < 0 || ix >= side) continue;
            sum += x[((n * side + iy) * side + ix) * C + i] * dy[((n * out + oy) * out + ox) * O + o];
          }
        }
      }
      return sum;
    };
    return [{ result: pulledBack(y, dY)[1] as Tensor, expected }];
  });
}

/** The four indices of the element at this place in row-major order. */
const places = (at: number, [, A, B, C]: readonly number[]): [number, number, number, number] => [
  Math.floor(at / C / B / A),
  Math.floor(at / C / B) % A,
  Math.floor(at / C) % B,
  at % C,
];
