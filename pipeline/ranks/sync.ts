/**
 * What ranks exchange within a step, as functions from tensors to tensors. In one process they are the identity, so
 * that they cost nothing. The exchange itself is the service Collective (ops/runtime/collective.ts).
 */
import { div } from "../../ops/arithmetic.ts";
import { combinedMoments, type Moments } from "../../ops/batch_norm.ts";
import { allGather, allReduceSum } from "../../ops/collective.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";

/** The exchanges of a step. */
export interface Sync {
  /** The rank of this process, from 0. */
  readonly rank: number;
  /** The number of ranks. */
  readonly world: number;
  /** Mean and variance over the rows of all ranks, for a synchronised batch norm. */
  readonly moments: (own: Moments) => Moments;
  /** The sum over ranks, of the same shape. */
  readonly sum: (x: Tensor) => Tensor;
  /** The mean over ranks, of the same shape, for tensors that only the end of the step reads: gradients and metrics. */
  readonly mean: (x: Tensor) => Tensor;
  /** The tensors of all ranks, [world, ...]; no gradient flows back. */
  readonly gather: (x: Tensor) => Tensor;
}

/** The exchanges of a single process. */
export const singleProcess: Sync = {
  rank: 0,
  world: 1,
  moments: (own) => own,
  sum: (x) => x,
  mean: (x) => x,
  gather: (x) => x,
};

/** The exchanges of one of several ranks. */
export const acrossRanks = (rank: number, world: number): Sync =>
  world === 1 ? singleProcess : {
    rank,
    world,
    moments: ({ values, rows }) => ({
      ...combinedMoments(allGather(values, world), allGather(rows, world)),
      total: (sums) => allReduceSum(sums),
    }),
    sum: (x) => allReduceSum(x),
    mean: (x) => div(allReduceSum(x, { overlappable: true }), world),
    gather: (x) => allGather(x, world),
  };
