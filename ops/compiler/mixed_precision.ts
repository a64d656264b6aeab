/**
 * Mixed precision: which tensors are stored as f16. Kernels compute in f32 all the same (kernels/f16_storage.ts); what
 * is narrowed are large tensors between one kernel and the next, activations and their gradients. Beyond 65504 they
 * become infinite, which loss scaling detects (pipeline/optim/loss_scale.ts).
 *
 * The rule is that of PyTorch's autocast: GEMMs are stored in f16; sums, softmaxes and losses are not; all else is
 * stored as its inputs are. State, constants and results of a program stay in f32, and so do operands and results of
 * collectives.
 */
import { sizeOf } from "../graph/shape.ts";
import type { OpTensor, Tensor } from "../graph/tensor.ts";
import { isExchange, isReduction } from "./graph.ts";

/** The tensors to be stored in f16 among the `scheduled`; those in `kept` stay in f32. */
export const storedInHalf = (
  scheduled: readonly OpTensor[],
  readsOf: (x: Tensor) => readonly Tensor[],
  kept: ReadonlySet<Tensor>,
): ReadonlySet<Tensor> => {
  const exchanged = new Set<Tensor>(scheduled.flatMap((x) => isExchange(x) ? [x, ...readsOf(x)] : []));
  const half = new Set<Tensor>();
  for (const x of scheduled) {
    const { precision } = x.source.op;
    if (x.dtype !== "f32" || kept.has(x) || exchanged.has(x) || precision === "full" || isReduction(x)) {
      continue;
    }
    if (precision === "half" || hasHalfInputs(readsOf(x), half)) half.add(x);
  }
  return half;
};

/** Whether the largest inputs are all stored in f16. */
const hasHalfInputs = (inputs: readonly Tensor[], half: ReadonlySet<Tensor>): boolean => {
  const reads = inputs.filter(({ dtype }) => dtype === "f32");
  const largest = Math.max(...reads.map(({ shape }) => sizeOf(shape)));
  return reads.length > 0 && reads.every((x) => sizeOf(x.shape) < largest || half.has(x));
};
