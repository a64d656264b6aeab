/**
 * The sync stage: what ranks exchange within a step. A service with a Layer for one process; the graph only sees
 * functions from tensors to tensors, which are the identity there, so that one rank pays nothing.
 */
import { Context, Layer } from "effect";
import type { Moments } from "../ops/batch_norm.ts";
import type { Tensor } from "../ops/tensor.ts";

export interface Collective {
  readonly rank: number;
  readonly world: number;
  /** Moments over the rows of all ranks (SyncBN). */
  readonly moments: (own: Moments) => Moments;
  /** Mean over ranks. */
  readonly mean: (x: Tensor) => Tensor;
  /** The rows of all ranks, rank after rank; no gradient flows back. */
  readonly gather: (x: Tensor) => Tensor;
}

export class Sync extends Context.Service<Sync, Collective>()("slotcon/Sync") {}

const same = <A>(x: A): A => x;

/** One process: everything is its own already. */
export const alone: Collective = { rank: 0, world: 1, moments: same, mean: same, gather: same };

export const single: Layer.Layer<Sync> = Layer.succeed(Sync, alone);
