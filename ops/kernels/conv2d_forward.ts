/** The kernels of a convolution. */
import { alignmentOf, type Kernel, type Operand } from "../graph/kernel.ts";
import type { LoweringContext, Variants } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { type Convolution, suitsWinograd } from "./convolution.ts";
import { gemmKernels } from "./gemm.ts";
import type { GemmSpec } from "./gemm_spec.ts";
import { tileVariants } from "./gemm_tiles.ts";
import { im2colPacked } from "./im2col.ts";
import { packedProduct } from "./matrix_product.ts";
import { packedShape, variantsOn } from "./packing.ts";
import { vectors } from "./wgsl.ts";
import { withWinograd } from "./winograd.ts";

/** The kernels of y [N, OH, OW, O] = x [N, H, W, C] ∗ w [KH, KW, C / groups, O]. */
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
 * Adds variants by im2col for a CPU, whose GEMM loads several rows at once from packed panels: for as many images at a
 * time as the cache holds.
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
  const images = most >= N ? N : most - most % 4;
  const shape = packedShape(1, images * pixels, K);
  const multipleOf4 = images > 0 && images * pixels % 4 === 0 && N % images * pixels % 4 === 0;
  const bindable = 4 * sizeOf(shape) <= adapter.maxBinding &&
    (images === N || images * pixels * O % alignmentOf(y) === 0);
  if (!adapter.cpu || convolution.groups > 1 || C % 4 > 0 || !multipleOf4 || !bindable) return direct;
  const weights = { ...w, shape: [1, K, O] };
  const gemmOf = (packed: Operand, first: number, count: number) => {
    const rows = { ...y, offset: y.offset + first * pixels * O, shape: [1, count * pixels, O] };
    return packedProduct({ ...packed, shape: packedShape(1, count * pixels, K) }, weights, rows);
  };
  const variants = tileVariants(gemmOf({ ...x, shape }, 0, images), adapter, (tile) => {
    const packed = scratch(shape);
    const kernels: Kernel[] = [];
    for (let first = 0; first < N; first += images) {
      const count = Math.min(images, N - first);
      kernels.push(
        im2colPacked(x, packed, { first, count }, [KH, KW], [OH, OW], convolution),
        ...gemmKernels(gemmOf(packed, first, count), tile, scratch, count === N ? statistics : null),
      );
    }
    return kernels;
  });
  const byIm2col = variantsOn("patches", variants);
  return C >= MANY_CHANNELS ? { ...byIm2col, ...direct } : { ...direct, ...byIm2col };
};

/** Bytes of packed panels that a CPU's last-level cache holds: an estimate. */
const IM2COL_BYTES = 16 * 2 ** 20;

/**
 * From so many channels on, im2col is faster than the direct GEMM on a CPU: the pixels of a tile are a power of two so
 * large apart that they evict each other from the cache (lavapipe 25.0, two cores, November 2026).
 */
const MANY_CHANNELS = 256;

/**
 * Below so many channels one loop goes over those of all taps of a row: the stem, of 3 channels, then takes two thirds
 * of the time (lavapipe 25.0, two cores, November 2026).
 */
const FEW_CHANNELS = 8;

/**
 * The convolution as an implicit GEMM: rows are pixels of the result, columns are output channels, and k goes over taps
 * and input channels. Where channels are few, one loop goes over those of all taps of a row of the kernel: in memory
 * they are contiguous.
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
  const [acrossTaps, length] = byRows ? [1, KW * I] : [KW, I]; // taps of a row in turn, elements of a loop
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
