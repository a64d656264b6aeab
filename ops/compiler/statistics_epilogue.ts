/** Which GEMMs take batch statistics of their output in a fused epilogue. */
import { type OpTensor, storageOf, type Tensor } from "../graph/tensor.ts";

/** Shifted sums that a GEMM's epilogue can prepare. */
export interface StatisticsRequest {
  /** The column reduction that computes them, [G, 2, C]. */
  readonly sums: OpTensor;
  /** The rows that they are taken over, [G, R, C]: the GEMM's output or a reshape of it. */
  readonly of: Tensor;
}

/**
 * For each tensor that shifted sums are taken of, the reduction that takes them. Tensors in `half` are left out: their
 * statistics are those of the rounded values, and a tile in registers is not rounded.
 */
export const statisticsEpilogues = (
  scheduled: readonly OpTensor[],
  half: ReadonlySet<Tensor>,
): ReadonlyMap<Tensor, StatisticsRequest> =>
  new Map(scheduled.flatMap((sums) => {
    const of = sums.source.op.shiftedSumsOf?.(sums.source.attributes) ?? null;
    return of === null || half.has(storageOf(of)) ? [] : [[storageOf(of), { sums, of }] as const];
  }));
