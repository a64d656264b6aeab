/** The kernels of a convolution's gradient with respect to its weights: a sum over all pixels of all images. */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { LoweringContext } from "../graph/lowering.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";
import { type Convolution, suitsWinograd } from "./convolution.ts";
import { gemmKernels } from "./gemm.ts";
import type { GemmSpec } from "./gemm_spec.ts";
import { tileVariants } from "./gemm_tiles.ts";
import { splitKFor, sumPartials } from "./partial_sums.ts";
import { vectorized } from "./vectorized.ts";
import { vectors } from "./wgsl.ts";
import { withWinogradGradient } from "./winograd.ts";

/** The kernels of dw from x [N, H, W, C] and dy [N, OH, OW, O]. */
export const conv2dWeightGradientKernels = (
  { inputs: [x, dy], output, attributes, adapter, scratch, choose }: LoweringContext<Convolution>,
): readonly Kernel[] => {
  const size = sizeOf(output.shape);
  const [N, OH, OW] = dy.shape;
  const parts = Math.min(N * OH, splitKFor(N * OH * OW, size / 64, adapter.cpu));
  const product = output.shape[2] % 4 === 0 ? productsOfTaps : productOfAllTaps;
  const productTo = (dw: Operand) => product(x, dy, dw, output.shape, parts, attributes);
  const direct = tileVariants(productTo(output), adapter, (tile) => {
    if (parts === 1) return gemmKernels(productTo(output), tile, scratch);
    const partial = scratch([parts, size]);
    return [
      ...gemmKernels(productTo(partial), tile, scratch),
      ...sumPartials(partial, output, 1, parts, size, scratch),
    ];
  });
  return choose(
    suitsWinograd(output, attributes)
      ? withWinogradGradient({ x, w: output, y: dy, ...attributes }, direct, { adapter, scratch })
      : direct,
  );
};

/**
 * Input channels times output channels, for each tap: the sum over the pixels of the result. Their rows are cut into
 * parts, which are summed separately: dw is [parts, KH, KW, I, O].
 */
const productsOfTaps = (
  x: Operand,
  dy: Operand,
  dw: Operand,
  [KH, KW, I]: Shape,
  parts: number,
  convolution: Convolution,
): GemmSpec => {
  const { groups } = convolution;
  const common = productOver(x, dy, dw, parts, convolution);
  return {
    ...common,
    label: `conv2dWeightGradient${common.width}`,
    reads: { ...common.reads, x: vectors(x) },
    sizes: { ...common.sizes, taps: KH * KW, KW, C: x.shape[3] / 4 },
    batch: KH * KW * groups * parts,
    rows: I,
    rowsAtOnce: 4,
    prologue: `
  let channelGroup = group.z % p.groups;
  let tap = group.z / p.groups % p.taps;
  let part = group.z / p.groups / p.taps;
  let firstRowOfPart = part * p.each;
  // Outputs whose tap lies inside the picture: shiftY <= oy·stride < shiftY + H, and so for x.
  let shiftY = i32(p.pad) - i32(tap / p.KW * p.dilation);
  let shiftX = i32(p.pad) - i32(tap % p.KW * p.dilation);
  let firstX = u32(max(shiftX + i32(p.stride) - 1, 0)) / p.stride;
  let lastX = min(u32(max(shiftX + i32(p.W) + i32(p.stride) - 1, 0)) / p.stride, p.OW);`,
    rowPrologue: (i) => `let c${i}_at = (channelGroup * p.M + row${i}) / 4u;`,
    mainLoop: (_, step, body) => `
  for (var row = firstRowOfPart; row < min(firstRowOfPart + p.each, p.imageRows); row++) {
    let iy = i32(row % p.OH * p.stride) - shiftY;
    let source = u32(i32((row / p.OH * p.H + u32(max(iy, 0))) * p.W) - shiftX);
    let end = select(firstX, lastX, iy >= 0 && iy < i32(p.H));
    let dy_at = row * p.OW * p.O + channelGroup * p.N;
    for (var ox = firstX; ox < end; ox += ${step}u) { ${body("ox", "end")} }
  }`,
    loadA: (i, ox) => `x[(source + ${ox} * p.stride) * p.C + c${i}_at]`,
    epilogue: (row, put) => `
    let dw_at = ((part * p.taps + tap) * p.M + ${row}) * p.O + channelGroup * p.N;
    ${put((column, value) => `dw[dw_at + ${column}] = ${value};`)}`,
  };
};

/** The same in one product of all taps: few input channels would leave most of a tile empty. */
const productOfAllTaps = (
  x: Operand,
  dy: Operand,
  dw: Operand,
  [KH, KW, I]: Shape,
  parts: number,
  convolution: Convolution,
): GemmSpec => {
  const common = productOver(x, dy, dw, parts, convolution);
  return {
    ...common,
    label: `conv2dWeightGradientOfAllTaps${common.width}`,
    reads: { ...common.reads, x },
    sizes: { ...common.sizes, KW, I, C: x.shape[3] },
    batch: convolution.groups * parts,
    rows: KH * KW * I,
    prologue: `
  let channelGroup = group.z % p.groups;
  let part = group.z / p.groups;
  let firstRowOfPart = part * p.each;`,
    rowPrologue: (i) => `
  let tapY${i} = row${i} / p.I / p.KW * p.dilation;
  let shift${i} = row${i} / p.I % p.KW * p.dilation - p.pad; // left of the picture wraps round to a large number
  let channel${i} = channelGroup * p.I + row${i} % p.I;`,
    mainLoop: (rows, step, body) => `
  for (var row = firstRowOfPart; row < min(firstRowOfPart + p.each, p.imageRows); row++) {
    ${
      rows.map((i) => `
    let iy${i} = row % p.OH * p.stride + tapY${i} - p.pad;
    let inside${i} = iy${i} < p.H;
    let at${i} = (row / p.OH * p.H + select(0u, iy${i}, inside${i})) * p.W;`).join("")
    }
    let dy_at = row * p.OW * p.O + channelGroup * p.N;
    for (var ox = 0u; ox < p.OW; ox += ${step}u) {
      ${body("ox", "p.OW")}
    }
  }`,
    loadA: (i, ox) => {
      const ix = `(${ox} * p.stride + shift${i})`;
      return `select(0.0, x[(at${i} + ${ix}) * p.C + channel${i}], inside${i} && ${ix} < p.W)`;
    },
    epilogue: (row, put) => `
    let dw_at = (part * p.M + ${row}) * p.O + channelGroup * p.N;
    ${put((column, value) => `dw[dw_at + ${column}] = ${value};`)}`,
  };
};

/** What both have in common: columns are the output channels of a group, the sum goes over rows of pictures of dy. */
const productOver = (
  x: Operand,
  dy: Operand,
  dw: Operand,
  parts: number,
  { stride, pad, dilation, groups }: Convolution,
) => {
  const [, H, W] = x.shape;
  const [N, OH, OW, O] = dy.shape;
  const { width, bind } = vectorized(O / groups);
  const imageRows = N * OH;
  return {
    reads: { dy: bind(dy) },
    writes: { dw: bind(dw) },
    sizes: {
      ...{ H, W, OH, OW, O: O / width, stride, pad, dilation, groups },
      ...{ imageRows, each: Math.ceil(imageRows / parts) },
    },
    columns: O / groups / width,
    width,
    loadB: (ox: string, column: string) => `dy[dy_at + ${ox} * p.O + ${column}]`,
  };
};
