/** The gradient of a convolution with respect to its input: each input pixel gathers from the outputs that it fed. */
import { accumulators, lines, multiply, tileFor, tileGrid, tileOrigin, vectorType } from "./_tile.ts";
import { conv2d, type Convolution } from "./conv2d.ts";
import { conv2dWeightGradient } from "./conv2d_weight_gradient.ts";
import { kernel, vectors } from "./kernel.ts";
import { transpose } from "./slice.ts";
import { defineOp, type Shape, type Tensor } from "./tensor.ts";

/** dy: [N, OH, OW, O], w: [KH, KW, C / groups, O], to the shape [N, H, W, C] of the convolution's input. */
export const conv2dInputGradient = (dy: Tensor, w: Tensor, shape: Shape, convolution: Convolution): Tensor =>
  inputGradientOp([dy, transpose(w, [0, 1, 3, 2]), w], { shape, ...convolution });

const inputGradientOp = defineOp<Convolution & { readonly shape: Shape }>("conv2dInputGradient", {
  shape: (_, { shape }) => shape,
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [dy, w], output, attributes: { stride, pad, dilation, groups }, adapter }) => {
    const [N, H, W, C] = output.shape;
    const [, OH, OW, O] = dy.shape;
    const [KH, KW] = w.shape;
    const I = C / groups;
    const tile = tileFor(I, adapter);
    const steps = O / groups % 4 === 0 ? 4 : 1;
    const type = vectorType(steps);
    // With a stride, input pixels of different remainders meet different taps: a workgroup has pixels of one kind only.
    const JH = Math.ceil(H / stride), JW = Math.ceil(W / stride);
    return [kernel({
      label: `conv2dInputGradient${steps}${tile.width}`,
      reads: { dy: steps === 4 ? vectors(dy) : dy, w: tile.width === 4 ? vectors(w) : w },
      writes: { dx: tile.width === 4 ? vectors(output) : output },
      sizes: {
        ...{ M: N * JH * JW, H, W, JH, JW, OH, OW, KH, KW, stride, pad, dilation, groups, I: I / tile.width },
        ...{ O: O / steps, perGroup: O / groups / steps },
      },
      workgroupSize: tile.workgroupSize,
      workgroups: tileGrid(tile, N * JH * JW, I / tile.width, stride * stride * groups),
      main: `${tileOrigin(tile)}
  let channelGroup = group.z % p.groups;
  let py = group.z / p.groups / p.stride;
  let px = group.z / p.groups % p.stride;
  ${lines(tile.columns, (j) => `let n${j} = min(column0 + ${j}u, p.I - 1u);`)}
  ${
        lines(tile.rows, (i) => `
  let pixel${i} = min(row0 + ${i}u, p.M - 1u);
  let jy${i} = pixel${i} / p.JW % p.JH;
  let jx${i} = pixel${i} % p.JW;
  let image${i} = pixel${i} / p.JW / p.JH;`)
      }
  ${accumulators(tile)}
  for (var ky = 0u; ky < p.KH; ky++) {
    let ty = i32(py + p.pad) - i32(ky * p.dilation);
    if (ty % i32(p.stride) != 0) { continue; }
    for (var kx = 0u; kx < p.KW; kx++) {
      let tx = i32(px + p.pad) - i32(kx * p.dilation);
      if (tx % i32(p.stride) != 0) { continue; }
      ${
        lines(tile.rows, (i) => `
      let oy${i} = u32(i32(jy${i}) + ty / i32(p.stride));
      let ox${i} = u32(i32(jx${i}) + tx / i32(p.stride));
      let inside${i} = oy${i} < p.OH && ox${i} < p.OW;
      let at${i} = select(0u, ((image${i} * p.OH + oy${i}) * p.OW + ox${i}) * p.O + channelGroup * p.perGroup, inside${i});`)
      }
      let tap = ((ky * p.KW + kx) * p.O + channelGroup * p.perGroup) * ${steps}u * p.I;
      for (var k = 0u; k < p.perGroup; k++) {
        ${lines(tile.rows, (i) => `let a${i} = select(${type}(0.0), dy[at${i} + k], inside${i});`)}
        let wk = tap + k * ${steps}u * p.I;
        ${multiply(tile, steps, (u, j) => `w[wk + ${u}u * p.I + n${j}]`)}
      }
    }
  }
  ${
        lines(tile.rows, (i) => `
  let iy${i} = jy${i} * p.stride + py;
  let ix${i} = jx${i} * p.stride + px;
  if (row0 + ${i}u < p.M && iy${i} < p.H && ix${i} < p.W) {
    let at = (((image${i} * p.H + iy${i}) * p.W + ix${i}) * p.groups + channelGroup) * p.I;
    ${lines(tile.columns, (j) => `if (column0 + ${j}u < p.I) { dx[at + n${j}] = c${i}_${j}; }`)}
  }`)
      }`,
    })];
  },
  backward: ({ inputs: [dy, , w], gradient, attributes }) => [
    conv2d(gradient, w, attributes),
    null,
    conv2dWeightGradient(gradient, dy, w.shape, attributes),
  ],
});
