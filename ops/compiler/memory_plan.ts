/**
 * Memory planning: which buffer and offset each tensor of a program gets, and how much device memory that takes in all.
 *
 * WebGPU forbids a kernel to read and write one buffer, so transient tensors are spread over several buffers (slots).
 */
import type { Kernel } from "../graph/kernel.ts";

/** A tensor's memory and the kernels between which it has to hold its values. */
export interface Lifetime {
  /** The number of the memory, as in `Operand`. */
  readonly storage: number;
  /** The name of the tensor in messages. */
  readonly name: string;
  /** How much memory. */
  readonly bytes: number;
  /** State outlives runs; batch inputs are uploaded before a run; activations and scratch are transient. */
  readonly group: "state" | "batch" | "constants" | "activations" | "scratch";
  /** Index of the first kernel that binds it. */
  readonly first: number;
  /** Index of the last kernel that binds it; the number of kernels where it is read after the run. */
  readonly last: number;
}

/** Where the transient tensors of a program are stored, and the memory of all its tensors. */
export interface MemoryPlan {
  /** Buffers of the transient tensors, the largest first. */
  readonly slots: readonly Slot[];
  /** Bytes of each group of tensors; of activations and scratch, the bytes in use at the peak. */
  readonly groups: Readonly<Record<Lifetime["group"], number>>;
  /** Bytes in use at the peak, tensors that are always there included. */
  readonly needed: number;
  /** Bytes that the program reserves: `needed` and the gaps between the tensors of a slot. */
  readonly total: number;
  /** The transient tensors: what `allocateInto` needs to place them again. */
  readonly transient: readonly Lifetime[];
}

/** A buffer for transient tensors. */
export interface Slot {
  /** Its size. */
  readonly bytes: number;
  /** Name of the largest tensor in it. */
  readonly name: string;
  /** Offset of each tensor, in bytes. */
  readonly allocations: readonly { readonly storage: number; readonly offset: number }[];
}

/** A binding may begin at multiples of this many bytes on every adapter (minStorageBufferOffsetAlignment). */
const ALIGNMENT = 256;

/**
 * Plans the memory of a program by first-fit-decreasing: the transient tensors, in the order of falling size, get the
 * lowest offset that is free during their lifetime in the first slot that has one. A tensor that a kernel reads never
 * shares a slot with one that the same kernel writes.
 */
export const planMemory = (lifetimes: readonly Lifetime[], kernels: readonly Kernel[]): MemoryPlan => {
  const transient = lifetimes.filter(isTransient);
  const slots: OpenSlot[] = [];
  firstFitDecreasing(transient, kernels, slots, ({ bytes }) => {
    const slot: OpenSlot = { bytes, tensors: [] };
    slots.push(slot);
    return slot;
  });
  const groups = { state: 0, batch: 0, constants: 0, ...peakOf(transient, kernels.length) };
  for (const { group, bytes } of lifetimes) {
    if (group !== "activations" && group !== "scratch") groups[group] += bytes;
  }
  const resident = groups.state + groups.batch + groups.constants;
  return {
    slots: slots.map(closed),
    groups,
    needed: resident + groups.activations + groups.scratch,
    total: resident + slots.reduce((total, slot) => total + slot.bytes, 0),
    transient,
  };
};

/**
 * Places the transient tensors of a plan into slots of the sizes `bins` (bytes) instead of its own, by the same rules;
 * null where that leaves a tensor without memory. One slot is returned for each bin, some of them perhaps empty.
 */
export const allocateInto = (
  bins: readonly number[],
  { transient }: Pick<MemoryPlan, "transient">,
  kernels: readonly Kernel[],
): readonly Slot[] | null => {
  const slots = bins.map((bytes): OpenSlot => ({ bytes, tensors: [] }));
  const fits = firstFitDecreasing(transient, kernels, slots, () => null);
  return fits ? slots.map(closed) : null;
};

const isTransient = ({ group, last }: Lifetime) =>
  group === "activations" || group === "scratch" && last >= 0;

/** Bytes of activations and of scratch memory at the moment when they take the most together. */
const peakOf = (transient: readonly Lifetime[], kernels: number) => {
  const change = { activations: new Float64Array(kernels + 2), scratch: new Float64Array(kernels + 2) };
  for (const { group, first, last, bytes } of transient) {
    const of = group === "scratch" ? change.scratch : change.activations;
    of[first] += bytes;
    of[last + 1] -= bytes;
  }
  let peak = { activations: 0, scratch: 0 };
  let activations = 0, scratch = 0;
  for (let at = 0; at <= kernels; at++) {
    activations += change.activations[at];
    scratch += change.scratch[at];
    if (activations + scratch > peak.activations + peak.scratch) peak = { activations, scratch };
  }
  return peak;
};

interface OpenSlot {
  readonly bytes: number;
  readonly tensors: Allocation[];
}

interface Allocation {
  readonly tensor: Lifetime;
  readonly offset: number; // in bytes
}

const closed = ({ bytes, tensors }: OpenSlot): Slot => ({
  bytes,
  name: tensors[0]?.tensor.name ?? "",
  allocations: tensors.map(({ tensor: { storage }, offset }) => ({ storage, offset })),
});

/** Allocates every tensor; where one fits into no slot, in the one that `open` makes for it. False if it makes none. */
const firstFitDecreasing = (
  tensors: readonly Lifetime[],
  kernels: readonly Kernel[],
  slots: readonly OpenSlot[],
  open: (tensor: Lifetime) => OpenSlot | null,
): boolean => {
  const conflicts = readWriteConflicts(kernels);
  for (const tensor of tensors.toSorted((a, b) => b.bytes - a.bytes || a.storage - b.storage)) {
    let offset: number | null = null;
    const free = slots.find((slot) =>
      (offset = freeOffset(tensor, slot, conflicts.get(tensor.storage))) !== null
    );
    const slot = free ?? open(tensor);
    if (slot === null) return false;
    slot.tensors.push({ tensor, offset: offset ?? 0 });
  }
  return true;
};

/**
 * The lowest offset that is free during a tensor's lifetime; null if there is none, or a conflicting tensor is there.
 */
const freeOffset = (
  tensor: Lifetime,
  { bytes, tensors }: OpenSlot,
  conflicts: ReadonlySet<number> | undefined,
): number | null => {
  const alive: Allocation[] = [];
  for (const other of tensors) {
    if (other.tensor.last < tensor.first || tensor.last < other.tensor.first) continue;
    if (conflicts?.has(other.tensor.storage)) return null;
    alive.push(other);
  }
  alive.sort((a, b) => a.offset - b.offset);
  let offset = 0;
  for (const other of alive) {
    if (offset + tensor.bytes <= other.offset) return offset;
    offset = Math.max(offset, Math.ceil((other.offset + other.tensor.bytes) / ALIGNMENT) * ALIGNMENT);
  }
  return offset + tensor.bytes <= bytes ? offset : null;
};

/** For each storage those that a kernel writes while it reads this one, or reads while it writes this one. */
const readWriteConflicts = (kernels: readonly Kernel[]): ReadonlyMap<number, ReadonlySet<number>> => {
  const conflicts = new Map<number, Set<number>>();
  const add = (one: number, other: number) => {
    const others = conflicts.get(one);
    if (others === undefined) conflicts.set(one, new Set([other]));
    else others.add(other);
  };
  for (const { bindings, workgroups } of kernels) {
    const storages = (writing: boolean) =>
      bindings.filter(({ access }) => (access === "write") === writing)
        .map(({ operand }) => operand.storage);
    const reads = storages(false);
    if ("indirect" in workgroups) reads.push(workgroups.indirect.storage);
    for (const written of storages(true)) {
      for (const read of reads) {
        add(written, read);
        add(read, written);
      }
    }
  }
  return conflicts;
};
