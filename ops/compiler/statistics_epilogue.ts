/** Which GEMMs take batch statistics of their output in a fused epilogue. */
import { isOp, storageOf, type Tensor } from "../graph/tensor.ts";

/** Shifted sums that a GEMM's epilogue can prepare. */
export interface StatisticsRequest {
  /** The column reduction that computes them, [G, 2, C]. */
  readonly sums: Tensor;
  /** The rows that they are taken over, [G, R, C]: the GEMM's output or a reshape of it. */
  readonly of: Tensor;
}

/** For each tensor that shifted sums are taken of: the reduction that takes them. */
export const statisticsEpilogues = (scheduled: readonly Tensor[]): ReadonlyMap<Tensor, StatisticsRequest> =>
  new Map(
    scheduled.filter(isOp).flatMap((x) => {
      const of = x.source.op.shiftedSumsOf?.(x.source.attributes) ?? null;
      return of === null ? [] : [[storageOf(of), { sums: x, of }] as const];
    }),
  );
