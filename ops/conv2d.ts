/**
 * Two-dimensional convolution (cross-correlation), channels-last.
 *
 *     y[n,oy,ox,o] = Σ x[n, oy·stride − pad + ky·dilation, ox·stride − pad + kx·dilation, i] · w[ky,kx,i,o]
 *
 * x: [N, H, W, C], w: [KH, KW, C / groups, O], y: [N, OH, OW, O]. Weights have the output channel last, so that the
 * innermost loop reads neighbouring words; files keep [O, C / groups, KH, KW]. One bias-free op: add a bias as [O].
 */
import { accumulators, lines, multiply, tileFor, tileGrid, tileOrigin, vectorType } from "./_tile.ts";
import { conv2dInputGradient } from "./conv2d_input_gradient.ts";
import { conv2dWeightGradient } from "./conv2d_weight_gradient.ts";
import { kernel, vectors } from "./kernel.ts";
import { matmul } from "./matmul.ts";
import { defineOp, reshape, shapeError, type Tensor } from "./tensor.ts";

export interface Convolution {
  readonly stride: number;
  readonly pad: number;
  readonly dilation: number;
  readonly groups: number;
}

/** See the formula above. Throws ShapeError where channels, groups and sizes do not fit together. */
export const conv2d = (x: Tensor, w: Tensor, options: Partial<Convolution> = {}): Tensor => {
  const convolution = { stride: 1, pad: 0, dilation: 1, groups: 1, ...options };
  const [KH, KW, C, O] = w.shape;
  const { stride, pad, groups } = convolution;
  // A plain product of matrices: pixels times channels.
  if (KH * KW === 1 && stride === 1 && pad === 0 && groups === 1 && x.shape[3] === C) {
    return matmul(x, reshape(w, [C, O]));
  }
  return conv2dOp([x, w], convolution);
};

/** Size of the output along an axis of `size` with a kernel of `taps`. */
export const outputSize = (size: number, taps: number, { stride, pad, dilation }: Convolution): number =>
  Math.floor((size + 2 * pad - dilation * (taps - 1) - 1) / stride) + 1;

const conv2dOp = defineOp<Convolution>("conv2d", {
  shape: ([x, w], convolution) => {
    const [N, H, W, C] = x.shape;
    const [KH, KW, I, O] = w.shape;
    const OH = outputSize(H, KH, convolution), OW = outputSize(W, KW, convolution);
    return x.shape.length === 4 && C === I * convolution.groups && O % convolution.groups === 0 && OH > 0 &&
        OW > 0
      ? [N, OH, OW, O]
      : shapeError("conv2d", `x [N, H, W, C] and w [KH, KW, C / ${convolution.groups}, O]`, x.shape, w.shape);
  },
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [x, w], output, attributes: { stride, pad, dilation, groups }, adapter }) => {
    const [, H, W] = x.shape;
    const [KH, KW, I, O] = w.shape;
    const [N, OH, OW] = output.shape;
    const tile = tileFor(O / groups, adapter);
    const steps = I % 4 === 0 ? 4 : 1;
    const type = vectorType(steps);
    return [kernel({
      label: `conv2d${steps}${tile.width}`,
      reads: { x: steps === 4 ? vectors(x) : x, w: tile.width === 4 ? vectors(w) : w },
      writes: { y: tile.width === 4 ? vectors(output) : output },
      sizes: {
        ...{ M: N * OH * OW, H, W, OH, OW, KH, KW, stride, pad, dilation },
        ...{ I: I / steps, C: (I * groups) / steps, O: O / tile.width, perGroup: O / groups / tile.width },
      },
      workgroupSize: tile.workgroupSize,
      workgroups: tileGrid(tile, N * OH * OW, O / groups / tile.width, groups),
      main: `${tileOrigin(tile)}
  ${lines(tile.columns, (j) => `let n${j} = group.z * p.perGroup + min(column0 + ${j}u, p.perGroup - 1u);`)}
  ${
        lines(tile.rows, (i) => `
  let pixel${i} = min(row0 + ${i}u, p.M - 1u);
  let y${i} = i32(pixel${i} / p.OW % p.OH * p.stride) - i32(p.pad);
  let x${i} = i32(pixel${i} % p.OW * p.stride) - i32(p.pad);
  let image${i} = pixel${i} / p.OW / p.OH * p.H;`)
      }
  ${accumulators(tile)}
  for (var ky = 0u; ky < p.KH; ky++) { for (var kx = 0u; kx < p.KW; kx++) {
    ${
        lines(tile.rows, (i) => `
    let iy${i} = u32(y${i} + i32(ky * p.dilation)); // left of the picture wraps round to a large number
    let ix${i} = u32(x${i} + i32(kx * p.dilation));
    let inside${i} = iy${i} < p.H && ix${i} < p.W;
    let at${i} = select(0u, ((image${i} + iy${i}) * p.W + ix${i}) * p.C + group.z * p.I, inside${i});`)
      }
    let tap = (ky * p.KW + kx) * p.I * ${steps}u * p.O;
    for (var k = 0u; k < p.I; k++) {
      ${lines(tile.rows, (i) => `let a${i} = select(${type}(0.0), x[at${i} + k], inside${i});`)}
      let wk = tap + k * ${steps}u * p.O;
      ${multiply(tile, steps, (u, j) => `w[wk + ${u}u * p.O + n${j}]`)}
    }
  } }
  ${
        lines(tile.rows, (i) =>
          `if (row0 + ${i}u < p.M) { ${
            lines(tile.columns, (j) =>
              `if (column0 + ${j}u < p.perGroup) { y[pixel${i} * p.O + n${j}] = c${i}_${j}; }`)
          } }`)
      }`,
    })];
  },
  backward: ({ inputs: [x, w], gradient, attributes }) => [
    conv2dInputGradient(gradient, w, x.shape, attributes),
    conv2dWeightGradient(x, gradient, w.shape, attributes),
  ],
});
