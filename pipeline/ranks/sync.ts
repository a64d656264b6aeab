/**
 * The sync stage: what ranks exchange within a step, as functions from tensors to tensors. In one process they are the
 * identity, so that one rank pays nothing. The exchange itself is the service of ops/collective.ts.
 */
import { div } from "../../ops/arithmetic.ts";
import { combinedMoments, type Moments } from "../../ops/batch_norm.ts";
import { allGather, allReduceSum } from "../../ops/collective.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";

export interface Sync {
  readonly rank: number;
  readonly world: number;
  /** Moments over the rows of all ranks (SyncBN). */
  readonly moments: (own: Moments) => Moments;
  readonly sum: (x: Tensor) => Tensor;
  /** Mean over ranks, for what only the end of the step reads: gradients, metrics. */
  readonly mean: (x: Tensor) => Tensor;
  /** x of all ranks, [world, ...]; no gradient flows back. */
  readonly gather: (x: Tensor) => Tensor;
}

/** One process: everything is its own already. */
export const singleProcess: Sync = {
  rank: 0,
  world: 1,
  moments: (own) => own,
  sum: (x) => x,
  mean: (x) => x,
  gather: (x) => x,
};

/** One of several ranks. */
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
