/**
 * The kernels of a convolution's gradient with respect to its input: each input pixel gathers from the outputs that
 * read it.
 */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { LoweringContext } from "../graph/lowering.ts";
import { type Convolution, suitsWinograd } from "./convolution.ts";
import { gemmKernels } from "./gemm.ts";
import type { GemmSpec } from "./gemm_spec.ts";
import { tileVariants } from "./gemm_tiles.ts";
import { transposeInner } from "./packing.ts";
import { vectors } from "./wgsl.ts";
import { withWinograd } from "./winograd.ts";

/** The kernels of dx [N, H, W, C] from dy [N, OH, OW, O] and w [KH, KW, C / groups, O]. */
export const conv2dInputGradientKernels = (
  { inputs: [dy, w], output, attributes, adapter, scratch, choose }: LoweringContext<Convolution>,
): readonly Kernel[] => {
  const [KH, KW, I, O] = w.shape;
  const size = gatherProduct(dy, { ...w, shape: [KH, KW, O, I] }, output, attributes);
  const direct = tileVariants(size, adapter, (tile) => {
    const weights = scratch([KH, KW, O, I]);
    return [
      transposeInner(w, weights),
      ...gemmKernels(gatherProduct(dy, weights, output, attributes), tile, scratch),
    ];
  });
  const { dilation } = attributes;
  const pad = 2 * dilation - attributes.pad;
  return choose(
    suitsWinograd(w, attributes) && pad >= 0
      ? withWinograd({ x: dy, w, y: output, pad, dilation, backward: true }, direct, { adapter, scratch })
      : direct,
  );
};

/**
 * The gradient as an implicit GEMM: rows are input pixels, columns are input channels, and k goes over taps and output
 * channels. With a stride, different taps reach pixels of different remainders: each GEMM of the batch has the pixels
 * of one remainder.
 */
const gatherProduct = (
  dy: Operand,
  w: Operand, // [KH, KW, O, I]
  dx: Operand,
  { stride, pad, dilation, groups }: Convolution,
): GemmSpec => {
  const [N, H, W, C] = dx.shape;
  const [, OH, OW, O] = dy.shape;
  const [KH, KW] = w.shape;
  const I = C / groups;
  const JH = Math.ceil(H / stride), JW = Math.ceil(W / stride);
  const width = I % 4 === 0 ? 4 : 1;
  return {
    label: `conv2dInputGradient${width}`,
    reads: { dy, w: width === 4 ? vectors(w) : w },
    writes: { dx: width === 4 ? vectors(dx) : dx },
    sizes: { H, W, JH, JW, OH, OW, KH, KW, stride, pad, dilation, groups, O, perGroup: O / groups },
    batch: stride * stride * groups,
    rows: N * JH * JW,
    columns: I / width,
    width,
    prologue: `
  let channelGroup = group.z % p.groups;
  let py = group.z / p.groups / p.stride;
  let px = group.z / p.groups % p.stride;`,
    rowPrologue: (i) => `
  let jy${i} = row${i} / p.JW % p.JH;
  let jx${i} = row${i} % p.JW;
  let image${i} = row${i} / p.JW / p.JH;`,
    mainLoop: (rows, step, body) => `
  for (var tap = 0u; tap < p.KH * p.KW; tap++) {
    let ty = i32(py + p.pad) - i32(tap / p.KW * p.dilation);
    let tx = i32(px + p.pad) - i32(tap % p.KW * p.dilation);
    if (ty % i32(p.stride) != 0 || tx % i32(p.stride) != 0) { continue; }
    ${
      rows.map((i) => `
    let oy${i} = u32(i32(jy${i}) + ty / i32(p.stride));
    let ox${i} = u32(i32(jx${i}) + tx / i32(p.stride));
    let inside${i} = oy${i} < p.OH && ox${i} < p.OW;
    let at${i} = select(0u, ((image${i} * p.OH + oy${i}) * p.OW + ox${i}) * p.O, inside${i}) + channelGroup * p.perGroup;`)
        .join("")
    }
    let w_at = (tap * p.O + channelGroup * p.perGroup) * p.N;
    for (var k = 0u; k < p.perGroup; k += ${step}u) { ${body("k", "p.perGroup")} }
  }`,
    loadA: (i, k) => `select(0.0, dy[at${i} + ${k}], inside${i})`,
    loadB: (k, column) => `w[w_at + ${k} * p.N + ${column}]`,
    epilogue: (row, put) => `
    let iy = ${row} / p.JW % p.JH * p.stride + py;
    let ix = ${row} % p.JW * p.stride + px;
    if (iy < p.H && ix < p.W) {
      let dx_at = (((${row} / p.JW / p.JH * p.H + iy) * p.W + ix) * p.groups + channelGroup) * p.N;
      ${put((column, value) => `dx[dx_at + ${column}] = ${value};`)}
    }`,
  };
};
