/** Weights that turn a sum over selected rows into a mean of means. */
import { NONE, type Selection } from "./compact_rows.ts";
import { requireWhole, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";

/** Equal blocks of a table's rows. */
export interface Blocks {
  /** How many blocks. */
  readonly blocks: number;
  /** Rows of a block. */
  readonly rowsPerBlock: number;
  /** With fewer selected rows than this in all (`total`), every weight is 0. */
  readonly atLeast: number;
}

/**
 * Weights [capacity] of the rows of a selection, with which their sum is the mean over blocks of the mean over each
 * block's selected rows: 1 / (blocks · selected rows of the same block). A block without any contributes 0; unused
 * entries weigh 0. `total` [1], f32, is the number of selected rows, here and on other ranks. No gradient.
 */
export const blockMeanWeights = ({ indices }: Selection, total: Tensor, attributes: Blocks): Tensor =>
  weightsOp([indices, total], attributes);

const weightsOp = defineOp<Blocks>("blockMeanWeights", {
  takes: ["u32", "f32"],
  shape: ([indices, total], { atLeast, ...sizes }) => {
    requireWhole("blockMeanWeights", sizes, 1, indices.shape);
    requireWhole("blockMeanWeights", { atLeast }, 0, indices.shape);
    return indices.shape.length === 1 && sizeOf(total.shape) === 1
      ? indices.shape
      : shapeError("blockMeanWeights", "indices [capacity] and their total [1]", indices.shape, total.shape);
  },
  kernels: ({ inputs: [indices, total], output, attributes: { blocks, rowsPerBlock, atLeast } }) => [kernel({
    label: "blockMeanWeights",
    reads: { indices, total },
    writes: { weights: output },
    sizes: { blocks, rowsPerBlock, atLeast, capacity: indices.shape[0] },
    threads: indices.shape[0],
    // Indices ascend, and unused ones are the largest: the rows of a block are neighbours, found by bisection.
    functions: /* wgsl */ `
fn entriesBelow(row: u32) -> u32 {
  var low = 0u;
  var high = p.capacity;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (indices[middle] < row) { low = middle + 1u; } else { high = middle; }
  }
  return low;
}`,
    main: /* wgsl */ `
  let row = indices[id];
  if (row == ${NONE} || total[0] < f32(p.atLeast)) {
    weights[id] = 0.0;
    return;
  }
  let start = row / p.rowsPerBlock * p.rowsPerBlock;
  let rows = entriesBelow(start + p.rowsPerBlock) - entriesBelow(start);
  weights[id] = 1.0 / f32(p.blocks * rows);`,
  })],
});
