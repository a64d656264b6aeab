/** The gradient of a convolution with respect to its weights: a sum over all pixels of all pictures. */
import { allRows, type RowPanel, rowPanels } from "./_panels.ts";
import { accumulators, lines, multiply, tileCells, tileFor, tileOrigin } from "./_tile.ts";
import type { Convolution } from "./conv2d.ts";
import { kernel, vectors } from "./kernel.ts";
import { addUp } from "./fuse.ts";
import { partsFor } from "./matmul.ts";
import { defineOp, type Shape, sizeOf, type Tensor } from "./tensor.ts";

/** x: [N, H, W, C], dy: [N, OH, OW, O], to the shape [KH, KW, C / groups, O] of the weights. */
export const conv2dWeightGradient = (x: Tensor, dy: Tensor, shape: Shape, convolution: Convolution): Tensor =>
  weightGradientOp([x, dy], { shape, ...convolution });

const weightGradientOp = defineOp<Convolution & { readonly shape: Shape }>("conv2dWeightGradient", {
  precision: "full",
  shape: (_, { shape }) => shape,
  flops: ([, dy], output) => 2 * sizeOf(dy.shape) * sizeOf(output.slice(0, 3)),
  slices: () => ({ along: [0, 1], output: "sum" }),
  kernels: ({ inputs: [x, dy], output, attributes: { stride, pad, dilation, groups }, adapter, scratch }) => {
    const [N, H, W, C] = x.shape;
    const [, OH, OW, O] = dy.shape;
    const [KH, KW, I] = output.shape;
    // Rows of pixels are the length of the sum: they come in panels of dy one after the other, or in parts side by side.
    const rows = N * OH;
    const panels = groups === 1 ? rowPanels(dy, rows, OW * O, adapter) : null;
    const tile = tileFor(O / groups, adapter, panels !== null);
    const { width } = tile;
    const steps = I % 4 === 0 ? 4 : 1; // a row tile is then one vector of input channels
    const tilesOfI = Math.ceil(I / tile.rows);
    // Rows of the result are taps times input channels; each row tile lies within one tap.
    const gridX = Math.ceil((KH * KW * tilesOfI) / tile.lanes[0]);
    const gridY = Math.ceil(O / groups / width / tile.columns / tile.lanes[1]);
    const invocations = gridX * gridY * groups * tile.workgroupSize;
    const parts = panels !== null ? 1 : Math.min(rows, partsFor(rows * OW, invocations, adapter.software));
    const size = sizeOf(output.shape);
    const partial = parts === 1 ? output : scratch([parts, size]);
    const product = ({ operand, uniform, first, last, before }: RowPanel) =>
      kernel({
        label: `conv2dWeightGradient${steps}${width}`,
        reads: {
          x: steps === 4 ? vectors(x) : x,
          ...(uniform ? {} : { dy: width === 4 ? vectors(operand) : operand }),
        },
        writes: { dw: width === 4 ? vectors(partial) : partial },
        uniforms: uniform ? { dy: operand } : {},
        sizes: {
          ...{ H, W, OH, OW, KH, KW, stride, pad, dilation, groups, tilesOfI, I, C: C / steps },
          ...{
            O: O / width,
            perGroup: O / groups / width,
            first,
            last,
            before,
            each: Math.ceil(rows / parts),
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
          lines(
            tile.columns,
            (j) => `let n${j} = channelGroup * p.perGroup + min(column0 + ${j}u, p.perGroup - 1u);`,
          )
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
  let exists = row0 / ${tile.rows}u / p.tilesOfI < p.KH * p.KW;
  let dw_at = ((part * p.KH * p.KW + tap) * p.I + i0) * p.O;
  ${accumulators(tile)}
  ${
          uniform
            ? `if (p.first > 0u && exists) { ${
              tileCells(
                tile,
                (i, j) => `if (i0 + ${i}u < p.I) { c${i}_${j} = dw[dw_at + ${i}u * p.O + n${j}]; }`,
              )
            } }`
            : ""
        }
  let begin = p.first + part * p.each;
  for (var row = begin; row < min(begin + p.each, p.last); row++) {
    let iy = i32(row % p.OH * p.stride) - shiftY;
    let inside = iy >= 0 && iy < i32(p.H);
    let source = u32(i32((row / p.OH * p.H + u32(max(iy, 0))) * p.W) - shiftX);
    let end = select(firstX, lastX, inside);
    for (var ox = firstX; ox < end; ox++) {
      let xi = (source + ox * p.stride) * p.C;
      let di = (row * p.OW + ox) * p.O - p.before;
      ${
          steps === 4
            ? `let av = x[xi + c0];\n${lines(tile.rows, (i) => `let a${i} = av[${i}];`)}`
            : lines(tile.rows, (i) => `let a${i} = x[xi + c${i}];`)
        }
      ${multiply(tile, 1, (_, j) => `dy[di + n${j}]`)}
    }
  }
  ${
          tileCells(
            tile,
            (i, j) =>
              `if (exists && i0 + ${i}u < p.I && column0 + ${j}u < p.perGroup) { dw[dw_at + ${i}u * p.O + n${j}] = c${i}_${j}; }`,
          )
        }`,
      });
    if (panels !== null) return panels.map(product);
    const whole = product(allRows(dy, rows));
    return parts === 1 ? [whole] : [whole, ...addUp(partial, output, 1, parts, size, scratch)];
  },
});
