/**
 * Collectives as ops of a graph: the program stops at such an op, the operand is read back, reduced or gathered over the
 * ranks, and uploaded. The compiler lets those that are ready together share a stop.
 */
import { defineOp, type Tensor } from "./graph/tensor.ts";

/** x of all ranks: [...] to [world, ...]. No gradient flows back. */
export const allGather = (x: Tensor, world: number): Tensor => gatherOp([x], { world });

/** Sum of x over ranks, of the same shape. No gradient flows back. `late`: see `Exchange`. */
export const allReduceSum = (x: Tensor, { late = false } = {}): Tensor =>
  (late ? lateSumOp : sumOp)([x], undefined);

const gatherOp = defineOp<{ readonly world: number }>("allGather", {
  shape: ([x], { world }) => [world, ...x.shape],
  exchange: { kind: "gather", overlappable: false },
});

const sumOp = defineOp("allReduceSum", {
  shape: ([x]) => x.shape,
  exchange: { kind: "sum", overlappable: false },
});
const lateSumOp = defineOp("allReduceSum", {
  shape: ([x]) => x.shape,
  exchange: { kind: "sum", overlappable: true },
});
