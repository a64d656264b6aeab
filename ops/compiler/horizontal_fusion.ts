/**
 * Horizontal fusion (PyTorch's multi-tensor apply): one kernel computes several next values of the state, as those of a
 * parameter and its momentum, or those of all small parameters of one shape. There are hundreds of them, and a dispatch
 * for each would take longer than its computation.
 */
import { sizeOf } from "../graph/shape.ts";
import type { OpTensor, Tensor } from "../graph/tensor.ts";
import { fusedInputsOfAll } from "./fused_inputs.ts";
import { isElementwise } from "./graph.ts";

/**
 * Elements up to which a tensor counts as small. Larger ones, whose computation takes longer than a dispatch, are
 * grouped with neighbours in the schedule only.
 */
const SMALL = 2 ** 16;

/** Tensors that one kernel computes, and the indices in the schedule between which it can run. */
interface Group {
  readonly members: OpTensor[];
  /** The last tensor outside the group that a member reads; −1 if there is none. */
  ready: number;
  /** The one before the first tensor outside the group that reads a member; Infinity if there is none. */
  due: number;
  /** The last member so far. */
  last: number;
}

/**
 * The schedule in groups of tensors that one kernel computes; most have one member. Groups form among the tensors
 * `next`, the next values of the state, where shape and sync depth are equal and a kernel can bind all that they read
 * and write.
 */
export const fusedHorizontally = (
  scheduled: readonly OpTensor[],
  { next, depths, readsOf, isInlined, maxStorageBuffers }: {
    readonly next: ReadonlySet<Tensor>;
    readonly depths: ReadonlyMap<Tensor, number>;
    readonly readsOf: (x: Tensor) => readonly Tensor[];
    readonly isInlined: (x: Tensor) => boolean;
    readonly maxStorageBuffers: number;
  },
): readonly (readonly OpTensor[])[] => {
  const neighbours = neighboursIn(scheduled, readsOf);
  const canBindAll = (members: readonly OpTensor[]) => {
    const inputs = fusedInputsOfAll(members, isInlined);
    return inputs !== null &&
      new Set(inputs.map(({ tensor }) => tensor)).size + members.length <= maxStorageBuffers;
  };
  const open = new Map<string, Group>(); // the latest group of each depth and shape
  const groups: Group[] = [];
  for (const [i, x] of scheduled.entries()) {
    if (!next.has(x) || !isElementwise(x)) {
      groups.push({ members: [x], ready: i, due: i, last: i });
      continue;
    }
    const key = `${depths.get(x)} ${x.shape.join()}`;
    const group = open.get(key);
    const members = [...group?.members ?? [], x];
    const ready = neighbours.lastRead(x, members);
    const due = neighbours.firstReader(members) - 1;
    const isNear = sizeOf(x.shape) <= SMALL || group?.last === i - 1;
    if (group !== undefined && isNear && Math.max(group.ready, ready) <= due && canBindAll(members)) {
      group.members.push(x);
      Object.assign(group, { ready: Math.max(group.ready, ready), due, last: i });
    } else {
      // A group that follows another of its shape runs as early as that one has to, where it can.
      const begun = {
        members: [x],
        ready,
        due: ready <= due ? due : neighbours.firstReader([x]) - 1,
        last: i,
      };
      open.set(key, begun);
      groups.push(begun);
    }
  }
  return groups.toSorted((a, b) => positionOf(a) - positionOf(b)).map(({ members }) => members);
};

/** Where in the schedule a group runs: at its last member, or just after the latest index that is still in time. */
const positionOf = ({ due, last }: Group): number => last <= due ? last : due + 0.5;

/** Finds, by index in the schedule, what tensors read and what reads them. */
const neighboursIn = (scheduled: readonly OpTensor[], readsOf: (x: Tensor) => readonly Tensor[]) => {
  const indexOf = new Map<Tensor, number>(scheduled.map((x, i) => [x, i]));
  const readers = new Map<Tensor, Tensor[]>();
  for (const x of scheduled) {
    for (const read of readsOf(x)) {
      const known = readers.get(read);
      if (known === undefined) readers.set(read, [x]);
      else known.push(x);
    }
  }
  const outside = (tensors: readonly Tensor[], members: readonly Tensor[]) =>
    tensors.filter((other) => !members.includes(other)).map((other) => indexOf.get(other) ?? -1);
  return {
    /** The last tensor that `x` reads and that is not among `members`; −1 if there is none. */
    lastRead: (x: Tensor, members: readonly Tensor[]) => Math.max(-1, ...outside(readsOf(x), members)),
    /** The first tensor that reads one of the `members` and is not among them; Infinity if there is none. */
    firstReader: (members: readonly Tensor[]) =>
      Math.min(Infinity, ...members.flatMap((member) => outside(readers.get(member) ?? [], members))),
  };
};
