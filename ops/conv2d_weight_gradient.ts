/** The gradient of a convolution with respect to its weights: a sum over all pixels of all pictures. */
import { partsFor, type Product, tiled, tileVariants } from "./_product.ts";
import { withWinogradGradient } from "./_winograd.ts";
import { type Convolution, suitsWinograd } from "./conv2d.ts";
import { type Operand, vectors } from "./kernel.ts";
import { addUp } from "./fuse.ts";
import { defineOp, type Shape, sizeOf, type Tensor } from "./tensor.ts";

/** x: [N, H, W, C], dy: [N, OH, OW, O], to the shape [KH, KW, C / groups, O] of the weights. */
export const conv2dWeightGradient = (x: Tensor, dy: Tensor, shape: Shape, convolution: Convolution): Tensor =>
  weightGradientOp([x, dy], { shape, ...convolution });

const weightGradientOp = defineOp<Convolution & { readonly shape: Shape }>("conv2dWeightGradient", {
  precision: "full",
  shape: (_, { shape }) => shape,
  flops: ([, dy], output) => 2 * sizeOf(dy.shape) * sizeOf(output.slice(0, 3)),
  slices: () => ({ along: [0, 1], output: "sum" }),
  kernels: ({ inputs: [x, dy], output, attributes, adapter, scratch, choose }) => {
    const size = sizeOf(output.shape);
    const [N, OH, OW] = dy.shape;
    const parts = Math.min(N * OH, partsFor(N * OH * OW, size / 64, adapter.software));
    const productTo = (dw: Operand) => directProduct(x, dy, dw, output.shape, parts, attributes);
    const direct = tileVariants(productTo(output), adapter, (tile) => {
      if (parts === 1) return tiled(productTo(output), tile, scratch);
      const partial = scratch([parts, size]);
      return [
        ...tiled(productTo(partial), tile, scratch),
        ...addUp(partial, output, 1, parts, size, scratch),
      ];
    });
    return choose(
      suitsWinograd(output, attributes)
        ? withWinogradGradient({ x, w: output, y: dy, pad: attributes.pad }, direct, { adapter, scratch })
        : direct,
    );
  },
});

/**
 * Input channels times output channels, for each tap: the sum over the pixels of the result. Their rows are cut into
 * parts, which are summed separately: dw is [parts, KH, KW, I, O].
 */
const directProduct = (
  x: Operand,
  dy: Operand,
  dw: Operand,
  [KH, KW, I, O]: Shape,
  parts: number,
  { stride, pad, dilation, groups }: Convolution,
): Product => {
  const [N, H, W, C] = x.shape;
  const [, OH, OW] = dy.shape;
  const rows = N * OH;
  const width = O / groups % 4 === 0 ? 4 : 1;
  const rowsAtOnce = I % 4 === 0 ? 4 : 1;
  return {
    label: `conv2dWeightGradient${rowsAtOnce}${width}`,
    reads: { x: rowsAtOnce === 4 ? vectors(x) : x, dy: width === 4 ? vectors(dy) : dy },
    writes: { dw: width === 4 ? vectors(dw) : dw },
    sizes: {
      ...{ H, W, OH, OW, taps: KH * KW, KW, stride, pad, dilation, groups, C: C / rowsAtOnce, O: O / width },
      ...{ imageRows: rows, each: Math.ceil(rows / parts) },
    },
    batch: KH * KW * groups * parts,
    rows: I,
    columns: O / groups / width,
    width,
    rowsAtOnce,
    before: `
  let channelGroup = group.z % p.groups;
  let tap = group.z / p.groups % p.taps;
  let part = group.z / p.groups / p.taps;
  let firstRowOfPart = part * p.each;
  // Outputs whose tap lies inside the picture: shiftY <= oy·stride < shiftY + H, and so for x.
  let shiftY = i32(p.pad) - i32(tap / p.KW * p.dilation);
  let shiftX = i32(p.pad) - i32(tap % p.KW * p.dilation);
  let firstX = u32(max(shiftX + i32(p.stride) - 1, 0)) / p.stride;
  let lastX = min(u32(max(shiftX + i32(p.W) + i32(p.stride) - 1, 0)) / p.stride, p.OW);`,
    row: (i) => `let c${i}_at = (channelGroup * p.M + row${i})${rowsAtOnce === 4 ? " / 4u" : ""};`,
    loops: (_, step, body) => `
  for (var row = firstRowOfPart; row < min(firstRowOfPart + p.each, p.imageRows); row++) {
    let iy = i32(row % p.OH * p.stride) - shiftY;
    let source = u32(i32((row / p.OH * p.H + u32(max(iy, 0))) * p.W) - shiftX);
    let end = select(firstX, lastX, iy >= 0 && iy < i32(p.H));
    let dy_at = row * p.OW * p.O + channelGroup * p.N;
    for (var ox = firstX; ox < end; ox += ${step}u) { ${body("ox", "end")} }
  }`,
    a: (i, ox) => `x[(source + ${ox} * p.stride) * p.C + c${i}_at]`,
    b: (ox, column) => `dy[dy_at + ${ox} * p.O + ${column}]`,
    store: (row, put) => `
    let dw_at = ((part * p.taps + tap) * p.M + ${row}) * p.O + channelGroup * p.N;
    ${put((column, value) => `dw[dw_at + ${column}] = ${value};`)}`,
  };
};
