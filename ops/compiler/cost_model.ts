/** The cost model of rematerialisation: how long ops take, and the memory of their results. */
import { bytesOf, type Operand } from "../graph/kernel.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import type { OpTensor, Tensor } from "../graph/tensor.ts";
import { isExchange } from "./graph.ts";
import type { ScheduledOp } from "./schedule_simulation.ts";

/**
 * Floating-point operations and bytes of memory traffic per second: orders of magnitude, not measured. Their ratio
 * matters, which makes a convolution costlier to recompute than an activation of the same size.
 */
const SPEED = { cpu: { flops: 2e10, bytes: 1e10 }, gpu: { flops: 1e13, bytes: 5e11 } };

/** About how many seconds it takes to compute a tensor whose kernels read and write so many bytes. */
export const secondsOf = ({ source, shape }: OpTensor, bytes: number, { cpu }: AdapterTraits): number => {
  const speed = cpu ? SPEED.cpu : SPEED.gpu;
  return (source.op.flops?.(source.inputs, shape) ?? 0) / speed.flops + bytes / speed.bytes;
};

/** The groups of a schedule as rematerialisation sees them. */
export const scheduledOps = (
  groups: readonly (readonly OpTensor[])[],
  { readsOf, kept, inPlace, operandOf, scratchBytes, traits }: {
    readonly readsOf: (x: Tensor) => readonly Tensor[];
    /** Tensors whose values outlive the run. */
    readonly kept: ReadonlySet<Tensor>;
    readonly inPlace: ReadonlyMap<Tensor, Tensor>;
    readonly operandOf: (x: Tensor) => Operand;
    /** Scratch memory of the kernels of each tensor. */
    readonly scratchBytes: ReadonlyMap<Tensor, number>;
    readonly traits: AdapterTraits;
  },
): readonly ScheduledOp[] => {
  const groupOf = new Map(groups.flatMap((members, i) => members.map((x): [Tensor, number] => [x, i])));
  const exchanged = new Set<Tensor>(groups.flat().flatMap((x) => isExchange(x) ? [x, ...readsOf(x)] : []));
  const totalBytes = (tensors: Iterable<Tensor>) =>
    [...tensors].reduce((sum, x) => sum + bytesOf(operandOf(x)), 0);
  return groups.map((members, i): ScheduledOp => {
    const [first] = members;
    const reads = new Set(members.flatMap(readsOf));
    const bytes = totalBytes(members.filter((x) => !inPlace.has(x)));
    const isResult = members.some((x) => kept.has(x));
    return {
      reads: [...new Set([...reads].flatMap((read) => groupOf.get(read) ?? []))].filter((j) => j !== i),
      bytes,
      scratch: scratchBytes.get(first) ?? 0,
      cost: isExchange(first) ? 0 : secondsOf(first, bytes + totalBytes(reads), traits),
      repeatable: !isResult && !exchanged.has(first),
      isResult,
    };
  });
};
