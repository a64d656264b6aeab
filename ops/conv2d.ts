/**
 * Two-dimensional convolution (cross-correlation), channels-last.
 *
 *     y[n,oy,ox,o] = Σ x[n, oy·stride − pad + ky·dilation, ox·stride − pad + kx·dilation, i] · w[ky,kx,i,o]
 *
 * x: [N, H, W, C], w: [KH, KW, C / groups, O], y: [N, OH, OW, O]. Weights have the output channel last, so that the
 * innermost loop reads neighbouring words; files keep [O, C / groups, KH, KW]. One bias-free op: add a bias as [O].
 */
import { type Panel, panelsOf, usesPanels, wholePanel } from "./_panels.ts";
import {
  accumulators,
  lines,
  multiply,
  tileCells,
  tileFor,
  tileGrid,
  tileOrigin,
  vectorType,
} from "./_tile.ts";
import { conv2dInputGradient } from "./conv2d_input_gradient.ts";
import { conv2dWeightGradient } from "./conv2d_weight_gradient.ts";
import { kernel, vectors } from "./kernel.ts";
import { matmul } from "./matmul.ts";
import { defineOp, reshape, shapeError, sizeOf, type Tensor } from "./tensor.ts";

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
  precision: "half",
  shape: ([x, w], convolution) => {
    const [N, H, W, C] = x.shape;
    const [KH, KW, I, O] = w.shape;
    const OH = outputSize(H, KH, convolution), OW = outputSize(W, KW, convolution);
    return x.shape.length === 4 && C === I * convolution.groups && O % convolution.groups === 0 && OH > 0 &&
        OW > 0
      ? [N, OH, OW, O]
      : shapeError("conv2d", `x [N, H, W, C] and w [KH, KW, C / ${convolution.groups}, O]`, x.shape, w.shape);
  },
  flops: ([, w], output) => 2 * sizeOf(output) * sizeOf(w.shape.slice(0, 3)),
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [x, w], output, attributes: { stride, pad, dilation, groups }, adapter, scratch }) => {
    const [, H, W] = x.shape;
    const [KH, KW, I, O] = w.shape;
    const [N, OH, OW] = output.shape;
    const rows = N * OH * OW;
    const steps = I % 4 === 0 ? 4 : 1;
    const wide = groups === 1 && usesPanels(rows, KH * KW * I, O, adapter);
    const tile = tileFor(O / groups, adapter, wide);
    const { width } = tile;
    const packed = wide ? panelsOf(w, KH * KW * I, O, steps, scratch) : null;
    const whole = wholePanel(w, KH * KW * I / steps, O / groups / width, O / width);
    const type = vectorType(steps);
    const product = ({ operand, uniform, firstRow, lastRow, firstColumn, columns, pitch }: Panel) =>
      kernel({
        label: `conv2d${steps}${width}`,
        reads: {
          x: steps === 4 ? vectors(x) : x,
          ...(uniform ? {} : { w: width === 4 ? vectors(operand) : operand }),
        },
        writes: { y: width === 4 ? vectors(output) : output },
        uniforms: uniform ? { w: operand } : {},
        sizes: {
          ...{
            M: rows,
            H,
            W,
            OH,
            OW,
            KW,
            stride,
            pad,
            dilation,
            I: I / steps,
            C: (I * groups) / steps,
            O: O / width,
          },
          ...{ k0: firstRow, k1: lastRow, n0: firstColumn, columns, pitch },
        },
        workgroupSize: tile.workgroupSize,
        workgroups: tileGrid(tile, rows, columns, groups),
        main: `${tileOrigin(tile)}
  let base = p.n0 + group.z * p.columns; // one group of channels, or one panel of columns
  ${lines(tile.columns, (j) => `let n${j} = min(column0 + ${j}u, p.columns - 1u);`)}
  ${
          lines(tile.rows, (i) => `
  let pixel${i} = min(row0 + ${i}u, p.M - 1u);
  let y${i} = i32(pixel${i} / p.OW % p.OH * p.stride) - i32(p.pad);
  let x${i} = i32(pixel${i} % p.OW * p.stride) - i32(p.pad);
  let image${i} = pixel${i} / p.OW / p.OH * p.H;`)
        }
  ${accumulators(tile)}
  ${
          uniform
            ? `if (p.k0 > 0u) { ${
              tileCells(tile, (i, j) => `c${i}_${j} = y[pixel${i} * p.O + base + n${j}];`)
            } }`
            : ""
        }
  for (var tap = p.k0 / p.I; tap * p.I < p.k1; tap++) {
    ${
          lines(tile.rows, (i) => `
    let iy${i} = u32(y${i} + i32(tap / p.KW * p.dilation)); // left of the picture wraps round to a large number
    let ix${i} = u32(x${i} + i32(tap % p.KW * p.dilation));
    let inside${i} = iy${i} < p.H && ix${i} < p.W;
    let at${i} = select(0u, ((image${i} + iy${i}) * p.W + ix${i}) * p.C + group.z * p.I, inside${i});`)
        }
    let first = max(p.k0, tap * p.I);
    for (var k = first; k < min(p.k1, (tap + 1u) * p.I); k++) {
      ${lines(tile.rows, (i) => `let a${i} = select(${type}(0.0), x[at${i} + k - tap * p.I], inside${i});`)}
      let wk = (k - p.k0) * ${steps}u * p.pitch${uniform ? "" : " + base"};
      ${multiply(tile, steps, (u, j) => `w[wk + ${u}u * p.pitch + n${j}]`)}
    }
  }
  ${
          tileCells(
            tile,
            (i, j) =>
              `if (row0 + ${i}u < p.M && column0 + ${j}u < p.columns) { y[pixel${i} * p.O + base + n${j}] = c${i}_${j}; }`,
          )
        }`,
      });
    return packed === null ? [product(whole)] : [packed.pack, ...packed.panels.map(product)];
  },
  backward: ({ inputs: [x, w], gradient, attributes }) => [
    conv2dInputGradient(gradient, w, x.shape, attributes),
    conv2dWeightGradient(x, gradient, w.shape, attributes),
  ],
});
