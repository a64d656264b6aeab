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

/** The kernels of dw [KH, KW, C / groups, O] from x [N, H, W, C] and dy [N, OH, OW, O]. */
export const conv2dWeightGradientKernels = (
  { inputs: [x, dy], output, attributes, adapter, scratch, choose }: LoweringContext<Convolution>,
): readonly Kernel[] => {
  const size = sizeOf(output.shape);
  const [N, OH, OW] = dy.shape;
  const splits = Math.min(N * OH, splitKFor(N * OH * OW, size / 64, adapter.cpu));
  const gemm = output.shape[2] % 4 === 0 ? gemmPerTap : gemmOfAllTaps;
  const gemmTo = (dw: Operand) => gemm({ x, dy, dw, shape: output.shape, splits, ...attributes });
  const direct = tileVariants(gemmTo(output), adapter, (tile) => {
    if (splits === 1) return gemmKernels(gemmTo(output), tile, scratch);
    const partials = scratch([splits, size]);
    return [
      ...gemmKernels(gemmTo(partials), tile, scratch),
      ...sumPartials(partials, output, 1, splits, size, scratch),
    ];
  });
  return choose(
    suitsWinograd(output, attributes)
      ? withWinogradGradient({ x, w: output, y: dy, ...attributes }, direct, { adapter, scratch })
      : direct,
  );
};

/** The operands of a split-K GEMM for a gradient of `shape` [KH, KW, I, O]: dw is [splits, KH, KW, I, O]. */
interface WeightGradient extends Convolution {
  readonly x: Operand;
  readonly dy: Operand;
  readonly dw: Operand;
  readonly shape: Shape;
  readonly splits: number;
}

/** A GEMM for each tap: rows are input channels, columns are output channels, and k goes over the pixels of dy. */
const gemmPerTap = (gradient: WeightGradient): GemmSpec => {
  const { x, shape: [KH, KW, I], splits, groups } = gradient;
  const common = overPixels(gradient);
  return {
    ...common,
    label: `conv2dWeightGradient${common.width}`,
    reads: { ...common.reads, x: vectors(x) },
    sizes: { ...common.sizes, taps: KH * KW, KW, C: x.shape[3] / 4 },
    batch: KH * KW * groups * splits,
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

/** One GEMM whose rows are taps and input channels: few input channels alone would leave most of a tile empty. */
const gemmOfAllTaps = (gradient: WeightGradient): GemmSpec => {
  const { x, shape: [KH, KW, I], splits, groups } = gradient;
  const common = overPixels(gradient);
  return {
    ...common,
    label: `conv2dWeightGradientOfAllTaps${common.width}`,
    reads: { ...common.reads, x },
    sizes: { ...common.sizes, KW, I, C: x.shape[3] },
    batch: groups * splits,
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

/** What both GEMMs have in common: columns are the output channels of a group, and k goes over rows of pixels of dy. */
const overPixels = ({ x, dy, dw, splits, stride, pad, dilation, groups }: WeightGradient) => {
  const [, H, W] = x.shape;
  const [N, OH, OW, O] = dy.shape;
  const { width, bind } = vectorized(O / groups);
  const imageRows = N * OH;
  return {
    reads: { dy: bind(dy) },
    writes: { dw: bind(dw) },
    sizes: {
      ...{ H, W, OH, OW, O: O / width, stride, pad, dilation, groups },
      ...{ imageRows, each: Math.ceil(imageRows / splits) },
    },
    columns: O / groups / width,
    width,
    loadB: (ox: string, column: string) => `dy[dy_at + ${ox} * p.O + ${column}]`,
  };
};
