/**
 * Half precision as a pass over a lowered graph: which tensors lie in memory as f16. Kernels compute in f32 all the same
 * (kernel.ts); what is narrowed are large tensors on their way from one kernel to the next, activations and their
 * gradients. Beyond 65504 they become infinite, which loss scaling watches for (pipeline/loss_scale.ts).
 *
 * The rule is that of PyTorch's autocast: products are stored in half; sums, softmaxes and losses are not; all else is as
 * what it is made from. State, constants and results of a program are never touched, nor what ranks exchange.
 */
import { sizeOf } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { isExchange, isReduction } from "./graph.ts";

/** What the pass needs to know of a graph. */
export interface Stored {
  /** All tensors that get memory of their own and are made by an op, each after what it reads. */
  readonly made: readonly Tensor[];
  /** The tensors in memory that one of them reads. */
  readonly readsOf: (x: Tensor) => readonly Tensor[];
  /** Those whose values leave the program or stay for its next run, by id. */
  readonly kept: ReadonlySet<number>;
}

/** The ids of the tensors to be stored in f16. */
export const storedInHalf = ({ made, readsOf, kept }: Stored): ReadonlySet<number> => {
  const exchanged = new Set(
    made.flatMap((x) => isExchange(x) ? [x, ...readsOf(x)] : []).map(({ id }) => id),
  );
  const half = new Set<number>();
  for (const x of made) {
    if (x.dtype !== "f32" || x.source.kind !== "op" || kept.has(x.id) || exchanged.has(x.id)) continue;
    const { precision } = x.source.op;
    if (precision === "full" || isReduction(x)) continue;
    const reads = readsOf(x).filter(({ dtype }) => dtype === "f32");
    const most = Math.max(...reads.map(({ shape }) => sizeOf(shape)));
    const follows = reads.length > 0 &&
      reads.every(({ id, shape }) => sizeOf(shape) < most || half.has(id));
    if (precision === "half" || follows) half.add(x.id);
  }
  return half;
};
