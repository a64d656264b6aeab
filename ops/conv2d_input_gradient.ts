/** The gradient of a convolution with respect to its input: each input pixel gathers from the outputs that it fed. */
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
import { conv2d, type Convolution } from "./conv2d.ts";
import { conv2dWeightGradient } from "./conv2d_weight_gradient.ts";
import { kernel, vectors } from "./kernel.ts";
import { transpose } from "./slice.ts";
import { defineOp, type Shape, sizeOf, type Tensor } from "./tensor.ts";

/** dy: [N, OH, OW, O], w: [KH, KW, C / groups, O], to the shape [N, H, W, C] of the convolution's input. */
export const conv2dInputGradient = (dy: Tensor, w: Tensor, shape: Shape, convolution: Convolution): Tensor =>
  inputGradientOp([dy, transpose(w, [0, 1, 3, 2]), w], { shape, ...convolution });

const inputGradientOp = defineOp<Convolution & { readonly shape: Shape }>("conv2dInputGradient", {
  precision: "half",
  shape: (_, { shape }) => shape,
  flops: ([dy, , w]) => 2 * sizeOf(dy.shape) * sizeOf(w.shape.slice(0, 3)),
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [dy, w], output, attributes: { stride, pad, dilation, groups }, adapter, scratch }) => {
    const [N, H, W, C] = output.shape;
    const [, OH, OW, O] = dy.shape;
    const [KH, KW] = w.shape;
    const I = C / groups;
    // With a stride, input pixels of different remainders meet different taps: a workgroup has pixels of one kind only.
    const JH = Math.ceil(H / stride), JW = Math.ceil(W / stride);
    const rows = N * JH * JW;
    const steps = O / groups % 4 === 0 ? 4 : 1;
    const wide = groups === 1 && usesPanels(rows, KH * KW * O, I, adapter);
    const tile = tileFor(I, adapter, wide);
    const { width } = tile;
    const packed = wide ? panelsOf(w, KH * KW * O, I, steps, scratch) : null;
    const whole = wholePanel(w, KH * KW * O / steps, I / width, I / width);
    const type = vectorType(steps);
    const product = ({ operand, uniform, firstRow, lastRow, firstColumn, columns, pitch }: Panel) =>
      kernel({
        label: `conv2dInputGradient${steps}${width}`,
        reads: {
          dy: steps === 4 ? vectors(dy) : dy,
          ...(uniform ? {} : { w: width === 4 ? vectors(operand) : operand }),
        },
        writes: { dx: width === 4 ? vectors(output) : output },
        uniforms: uniform ? { w: operand } : {},
        sizes: {
          ...{ M: rows, H, W, JH, JW, OH, OW, KW, stride, pad, dilation, groups, I: I / width },
          ...{ O: O / steps, perGroup: O / groups / steps },
          ...{ k0: firstRow, k1: lastRow, n0: firstColumn, columns, pitch },
        },
        workgroupSize: tile.workgroupSize,
        workgroups: tileGrid(tile, rows, columns, stride * stride * groups),
        main: `${tileOrigin(tile)}
  let channelGroup = group.z % p.groups;
  let py = group.z / p.groups / p.stride;
  let px = group.z / p.groups % p.stride;
  ${lines(tile.columns, (j) => `let n${j} = min(column0 + ${j}u, p.columns - 1u);`)}
  ${
          lines(tile.rows, (i) => `
  let pixel${i} = min(row0 + ${i}u, p.M - 1u);
  let jy${i} = pixel${i} / p.JW % p.JH;
  let jx${i} = pixel${i} % p.JW;
  let image${i} = pixel${i} / p.JW / p.JH;
  let iy${i} = jy${i} * p.stride + py;
  let ix${i} = jx${i} * p.stride + px;
  let dx${i}_at = (((image${i} * p.H + iy${i}) * p.W + ix${i}) * p.groups + channelGroup) * p.I + p.n0;
  let exists${i} = row0 + ${i}u < p.M && iy${i} < p.H && ix${i} < p.W;`)
        }
  ${accumulators(tile)}
  ${
          uniform
            ? `if (p.k0 > 0u) { ${
              tileCells(tile, (i, j) => `if (exists${i}) { c${i}_${j} = dx[dx${i}_at + n${j}]; }`)
            } }`
            : ""
        }
  for (var tap = p.k0 / p.O; tap * p.O < p.k1; tap++) {
    let ty = i32(py + p.pad) - i32(tap / p.KW * p.dilation);
    let tx = i32(px + p.pad) - i32(tap % p.KW * p.dilation);
    if (ty % i32(p.stride) != 0 || tx % i32(p.stride) != 0) { continue; }
    ${
          lines(tile.rows, (i) => `
    let oy${i} = u32(i32(jy${i}) + ty / i32(p.stride));
    let ox${i} = u32(i32(jx${i}) + tx / i32(p.stride));
    let inside${i} = oy${i} < p.OH && ox${i} < p.OW;
    let at${i} = select(0u, ((image${i} * p.OH + oy${i}) * p.OW + ox${i}) * p.O, inside${i});`)
        }
    let begin = tap * p.O + channelGroup * p.perGroup;
    for (var k = max(p.k0, begin); k < min(p.k1, begin + p.perGroup); k++) {
      ${lines(tile.rows, (i) => `let a${i} = select(${type}(0.0), dy[at${i} + k - tap * p.O], inside${i});`)}
      let wk = (k - p.k0) * ${steps}u * p.pitch;
      ${multiply(tile, steps, (u, j) => `w[wk + ${u}u * p.pitch + n${j}]`)}
    }
  }
  ${
          tileCells(
            tile,
            (i, j) =>
              `if (exists${i} && column0 + ${j}u < p.columns) { dx[dx${i}_at + n${j}] = c${i}_${j}; }`,
          )
        }`,
      });
    return packed === null ? [product(whole)] : [packed.pack, ...packed.panels.map(product)];
  },
  backward: ({ inputs: [dy, , w], gradient, attributes }) => [
    conv2d(gradient, w, attributes),
    null,
    conv2dWeightGradient(gradient, dy, w.shape, attributes),
  ],
});
