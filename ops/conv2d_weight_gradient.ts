/** The gradient of a convolution with respect to its weights: a sum over all pixels of all pictures. */
import { accumulators, lines, multiply, tileFor, tileOrigin } from "./_tile.ts";
import type { Convolution } from "./conv2d.ts";
import { kernel, vectors } from "./kernel.ts";
import { addUp } from "./fuse.ts";
import { partsFor } from "./matmul.ts";
import { defineOp, type Shape, sizeOf, type Tensor } from "./tensor.ts";

/** x: [N, H, W, C], dy: [N, OH, OW, O], to the shape [KH, KW, C / groups, O] of the weights. */
export const conv2dWeightGradient = (x: Tensor, dy: Tensor, shape: Shape, convolution: Convolution): Tensor =>
  weightGradientOp([x, dy], { shape, ...convolution });

const weightGradientOp = defineOp<Convolution & { readonly shape: Shape }>("conv2dWeightGradient", {
  shape: (_, { shape }) => shape,
  slices: () => ({ along: [0, 1], output: "sum" }),
  kernels: ({ inputs: [x, dy], output, attributes: { stride, pad, dilation, groups }, adapter, scratch }) => {
    const [N, H, W, C] = x.shape;
    const [, OH, OW, O] = dy.shape;
    const [KH, KW, I] = output.shape;
    const tile = tileFor(O / groups, adapter);
    const steps = I % 4 === 0 ? 4 : 1; // a row tile is then one vector of input channels
    const tilesOfI = Math.ceil(I / tile.rows);
    // Rows of the result are taps times input channels; each row tile lies within one tap.
    const gridX = Math.ceil((KH * KW * tilesOfI) / tile.lanes[0]);
    const gridY = Math.ceil(O / groups / tile.width / tile.columns / tile.lanes[1]);
    // Rows of pixels are the length of the sum that may be cut.
    const parts = Math.min(
      N * OH,
      partsFor(N * OH * OW, gridX * gridY * groups * tile.workgroupSize, adapter.software),
    );
    const size = sizeOf(output.shape);
    const partial = parts === 1 ? output : scratch([parts, size]);
    const product = kernel({
      label: `conv2dWeightGradient${steps}${tile.width}`,
      reads: { x: steps === 4 ? vectors(x) : x, dy: tile.width === 4 ? vectors(dy) : dy },
      writes: { dw: tile.width === 4 ? vectors(partial) : partial },
      sizes: {
        ...{ H, W, OH, OW, KH, KW, stride, pad, dilation, groups, parts, tilesOfI, I, C: C / steps },
        ...{
          O: O / tile.width,
          perGroup: O / groups / tile.width,
          rows: N * OH,
          each: Math.ceil(N * OH / parts),
        },
      },
      workgroupSize: tile.workgroupSize,
      workgroups: [gridX, gridY, groups * parts],
      main: `${tileOrigin(tile)}
  let channelGroup = group.z % p.groups;
  let part = group.z / p.groups;
  let tap = min(row0 / ${tile.rows}u / p.tilesOfI, p.KH * p.KW - 1u);
  let i0 = row0 / ${tile.rows}u % p.tilesOfI * ${tile.rows}u;
  ${
        lines(tile.columns, (j) =>
          `let n${j} = channelGroup * p.perGroup + min(column0 + ${j}u, p.perGroup - 1u);`)
      }
  ${
        steps === 4
          ? `let c0 = (channelGroup * p.I + i0) / 4u;`
          : lines(tile.rows, (i) => `let c${i} = channelGroup * p.I + min(i0 + ${i}u, p.I - 1u);`)
      }
  // Outputs whose tap lies inside the picture: shiftY <= oy·stride < shiftY + H, and so for x.
  let shiftY = i32(p.pad) - i32(tap / p.KW * p.dilation);
  let shiftX = i32(p.pad) - i32(tap % p.KW * p.dilation);
  let firstX = u32(max(shiftX + i32(p.stride) - 1, 0)) / p.stride;
  let lastX = min(u32(max(shiftX + i32(p.W) + i32(p.stride) - 1, 0)) / p.stride, p.OW);
  ${accumulators(tile)}
  for (var row = part * p.each; row < min((part + 1u) * p.each, p.rows); row++) {
    let iy = i32(row % p.OH * p.stride) - shiftY;
    let inside = iy >= 0 && iy < i32(p.H);
    let source = u32(i32((row / p.OH * p.H + u32(max(iy, 0))) * p.W) - shiftX);
    let end = select(firstX, lastX, inside);
    for (var ox = firstX; ox < end; ox++) {
      let xi = (source + ox * p.stride) * p.C;
      let di = (row * p.OW + ox) * p.O;
      ${
        steps === 4
          ? `let av = x[xi + c0];\n${lines(tile.rows, (i) => `let a${i} = av[${i}];`)}`
          : lines(tile.rows, (i) => `let a${i} = x[xi + c${i}];`)
      }
      ${multiply(tile, 1, (_, j) => `dy[di + n${j}]`)}
    }
  }
  ${
        lines(tile.rows, (i) => `
  if (row0 / ${tile.rows}u / p.tilesOfI < p.KH * p.KW && i0 + ${i}u < p.I) {
    let at = ((part * p.KH * p.KW + tap) * p.I + i0 + ${i}u) * p.O;
    ${lines(tile.columns, (j) => `if (column0 + ${j}u < p.perGroup) { dw[at + n${j}] = c${i}_${j}; }`)}
  }`)
      }`,
    });
    return parts === 1 ? [product] : [product, ...addUp(partial, output, 1, parts, size, scratch)];
  },
});
