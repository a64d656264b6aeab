/**
 * Collectives as ops of a graph. They run on the host: the program is split there, the operand is read back, reduced or
 * gathered over the ranks, and uploaded. Collectives of equal depth share a synchronisation point
 * (compiler/sync_points.ts).
 */
import { defineOp, type Tensor } from "./graph/tensor.ts";

/** x of all `world` ranks in their order: [...] to [world, ...]. No gradient. */
export const allGather = (x: Tensor, world: number): Tensor => gatherOp([x], { world });

/**
 * The sum of x over the ranks, of the same shape; all ranks get the same bits. `overlappable` where only the end of the
 * program reads it, such as sums of gradients: it then overlaps with other work. No gradient.
 */
export const allReduceSum = (x: Tensor, { overlappable = false } = {}): Tensor =>
  (overlappable ? overlappableSumOp : sumOp)([x], undefined);

const gatherOp = defineOp<{ readonly world: number }>("allGather", {
  shape: ([x], { world }) => [world, ...x.shape],
  exchange: { kind: "gather", overlappable: false },
});

const sumOp = defineOp("allReduceSum", {
  shape: ([x]) => x.shape,
  exchange: { kind: "sum", overlappable: false },
});
const overlappableSumOp = defineOp("allReduceSum", {
  shape: ([x]) => x.shape,
  exchange: { kind: "sum", overlappable: true },
});
