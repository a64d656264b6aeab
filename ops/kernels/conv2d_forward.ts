/** The kernels of a convolution. */
import { alignmentOf, type Kernel, type Operand } from "../graph/kernel.ts";
import type { LoweringContext, Variants } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { type Convolution, suitsWinograd } from "./convolution.ts";
import { gemmKernels } from "./gemm.ts";
import type { GemmSpec } from "./gemm_spec.ts";
import { tileVariants } from "./gemm_tiles.ts";
import { im2colPacked } from "./im2col.ts";
import { productOfPanels } from "./matrix_product.ts";
import { packedShape, variantsOn } from "./packing.ts";
import { vectors } from "./wgsl.ts";
import { withWinograd } from "./winograd.ts";

/** The kernels of y = x ∗ w. */
export const conv2dKernels = (
  { inputs: [x, w], output: y, attributes, adapter, scratch, statistics, choose }: LoweringContext<
    Convolution
  >,
): readonly Kernel[] => {
  const product = directProduct(x, w, y, attributes);
  const direct = tileVariants(product, adapter, (tile) => gemmKernels(product, tile, scratch, statistics));
  return choose(
    suitsWinograd(w, attributes)
      ? withWinograd({ x, w, y, ...attributes }, direct, { adapter, scratch })
      : withIm2col({ x, w, y, ...attributes }, direct, { adapter, scratch, statistics }),
  );
};

/**
 * A CPU loads several rows at once where they lie side by side: there the pixels that a result depends on are first put
 * together, of as many pictures at a time as a cache holds.
 */
const withIm2col = (
  { x, w, y, ...convolution }: Convolution & {
    readonly x: Operand;
    readonly w: Operand;
    readonly y: Operand;
  },
  direct: Variants,
  { adapter, scratch, statistics }: Pick<LoweringContext<never>, "adapter" | "scratch" | "statistics">,
): Variants => {
  const [N, , , C] = x.shape;
  const [KH, KW, , O] = w.shape;
  const [, OH, OW] = y.shape;
  const K = KH * KW * C, pixels = OH * OW;
  const most = Math.floor(IM2COL_BYTES / (4 * K * pixels));
  const pictures = most >= N ? N : most - most % 4;
  const shape = packedShape(1, pictures * pixels, K);
  const wholeFours = pictures > 0 && pictures * pixels % 4 === 0 && N % pictures * pixels % 4 === 0;
  const bound = 4 * sizeOf(shape) <= adapter.maxBinding &&
    (pictures === N || pictures * pixels * O % alignmentOf(y) === 0);
  if (!adapter.cpu || convolution.groups > 1 || C % 4 > 0 || !wholeFours || !bound) return direct;
  const weights = { ...w, shape: [1, K, O] };
  const productOf = (panels: Operand, first: number, count: number) => {
    const part = { ...y, offset: y.offset + first * pixels * O, shape: [1, count * pixels, O] };
    return productOfPanels({ ...panels, shape: packedShape(1, count * pixels, K) }, weights, part);
  };
  const ways = tileVariants(productOf({ ...x, shape }, 0, pictures), adapter, (tile) => {
    const panels = scratch(shape);
    const kernels: Kernel[] = [];
    for (let first = 0; first < N; first += pictures) {
      const count = Math.min(pictures, N - first);
      kernels.push(
        im2colPacked(x, panels, { first, count }, [KH, KW], [OH, OW], convolution),
        ...gemmKernels(productOf(panels, first, count), tile, scratch, count === N ? statistics : null),
      );
    }
    return kernels;
  });
  const patches = variantsOn("patches", ways);
  return C >= MANY_CHANNELS ? { ...patches, ...direct } : { ...direct, ...patches };
};

const IM2COL_BYTES = 16 * 2 ** 20;

/** With so many the pixels of a tile lie so far apart, by a power of two, that they push each other out of a CPU's cache. */
const MANY_CHANNELS = 256;

const FEW_CHANNELS = 8;

/**
 * The formula as it stands: pixels of the result times output channels, the sum over taps and input channels. Where
 * channels are few, those of all taps of a row of the kernel are gone through at once: in memory they follow each other.
 */
const directProduct = (
  x: Operand,
  w: Operand,
  y: Operand,
  { stride, pad, dilation, groups }: Convolution,
): GemmSpec => {
  const [, H, W] = x.shape;
  const [KH, KW, I, O] = w.shape;
  const [N, OH, OW] = y.shape;
  const width = O / groups % 4 === 0 ? 4 : 1;
  const byRows = I < FEW_CHANNELS && dilation === 1 && groups === 1;
  const [acrossTaps, length] = byRows ? [1, KW * I] : [KW, I]; // taps of a row one by one, elements at once
  return {
    label: `conv2d${byRows ? "Rows" : ""}${width}`,
    reads: { x, w: width === 4 ? vectors(w) : w },
    writes: { y: width === 4 ? vectors(y) : y },
    sizes: {
      ...{ H, W, OH, OW, taps: KH * acrossTaps, acrossTaps, length, stride, pad, dilation },
      ...{ C: I * groups, O: O / width },
    },
    batch: groups,
    rows: N * OH * OW,
    columns: O / groups / width,
    width,
    rowPrologue: (i) => `
  let y${i} = i32(row${i} / p.OW % p.OH * p.stride) - i32(p.pad);
  let x${i} = i32(row${i} % p.OW * p.stride) - i32(p.pad);
  let image${i} = row${i} / p.OW / p.OH * p.H;`,
    mainLoop: (rows, step, body) => `
  for (var tap = 0u; tap < p.taps; tap++) {
    ${
      rows.map((i) => `
    let iy${i} = u32(y${i} + i32(tap / p.acrossTaps * p.dilation)); // left of the picture wraps round to a large number
    let ix${i} = u32(x${i} + i32(tap % p.acrossTaps * p.dilation));
    let inside${i} = iy${i} < p.H${byRows ? "" : ` && ix${i} < p.W`};
    let at${i} = select(0u, ((image${i} + iy${i}) * p.W + ix${i}) * p.C + group.z * p.length, inside${i});`)
        .join("")
    }
    let w_at = tap * p.length * p.O + group.z * p.N;
    for (var k = 0u; k < p.length; k += ${step}u) { ${body("k", "p.length")} }
  }`,
    loadA: (i, k) =>
      `select(0.0, x[at${i} + ${k}], inside${i}${byRows ? ` && ix${i} + (${k}) / p.C < p.W` : ""})`,
    loadB: (k, column) => `w[w_at + ${k} * p.O + ${column}]`,
    epilogue: (row, put) => `
    let y_at = ${row} * p.O + group.z * p.N;
    ${put((column, value) => `y[y_at + ${column}] = ${value};`)}`,
  };
};
