/** The schedule: in which order tensors are computed, and which of them more than once. */
import { isOp, type OpTensor, storageOf, type Tensor } from "../graph/tensor.ts";
import { fusedInputs } from "./fused_inputs.ts";
import { isFused } from "./graph.ts";

/** The tensors that have kernels of their own, by sync depth and, within one, in the order of their creation. */
export const scheduleOrder = (
  live: readonly Tensor[],
  isInlined: (x: Tensor) => boolean,
  depths: ReadonlyMap<Tensor, number>,
): readonly OpTensor[] =>
  live.filter(isOp).filter((x) => !isInlined(x))
    .sort((a, b) => depths.get(a)! - depths.get(b)! || a.id - b.id);

/** For each scheduled tensor the tensors in memory that its kernels read. */
export const storedReads = (
  scheduled: readonly OpTensor[],
  isInlined: (x: Tensor) => boolean,
): ReadonlyMap<Tensor, readonly Tensor[]> =>
  new Map(scheduled.map((x) => [
    x,
    isFused(x) ? fusedInputs(x, isInlined)!.map(({ tensor }) => tensor) : x.source.inputs.map(storageOf),
  ]));

/** Tensors that are computed together. */
export interface ScheduleStep {
  /** The tensors; most steps have one. */
  readonly members: readonly OpTensor[];
  /** The first member, or where the step recomputes it, the next tensor that needs it again. */
  readonly scheduledFor: OpTensor;
}

/** Whether the members of a step have been computed before. */
export const isRecomputed = ({ members, scheduledFor }: ScheduleStep): boolean => members[0] !== scheduledFor;

/**
 * The steps of a schedule: groups of tensors in `order`, of their indices. A group that occurs again is recomputed for
 * the next group in the order that is new.
 */
export const scheduleSteps = (
  groups: readonly (readonly OpTensor[])[],
  order: Iterable<number> = groups.keys(),
): readonly ScheduleStep[] => {
  const steps: ScheduleStep[] = [];
  const computed = new Set<number>();
  const recomputed: number[] = [];
  for (const group of order) {
    if (computed.has(group)) {
      recomputed.push(group);
      continue;
    }
    computed.add(group);
    const [scheduledFor] = groups[group];
    for (const index of [...recomputed.splice(0), group]) {
      steps.push({ members: groups[index], scheduledFor });
    }
  }
  return steps;
};
