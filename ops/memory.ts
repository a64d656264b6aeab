/** The memory plan: which tensors share a buffer, and how much the whole takes. */

export interface Use {
  readonly storage: number;
  readonly name: string;
  readonly bytes: number;
  readonly group: "state" | "batch" | "constants" | "activations" | "scratch";
  /** The first and last kernel that touch it. */
  readonly first: number;
  readonly last: number;
}

export interface MemoryPlan {
  /** Buffers for everything that comes and goes within a run. */
  readonly slots: readonly Slot[];
  /** Bytes of each group of tensors; activations and scratch share the slots. */
  readonly groups: Readonly<Record<Use["group"], number>>;
  /** The most bytes that are in use at one moment. */
  readonly needed: number;
  /** What the program reserves in all: `needed` plus what sharing buffers wastes. */
  readonly total: number;
}

interface Slot {
  readonly bytes: number;
  readonly storages: readonly number[];
  readonly names: readonly string[];
}

/**
 * Shares buffers among tensors that are never in use at once: the largest first, each into the smallest buffer that is
 * free all its life. Whole buffers and not ranges of one, as WebGPU does not let a kernel read and write one buffer.
 */
export const planMemory = (uses: readonly Use[], kernels: number): MemoryPlan => {
  const passing = uses.filter((use) => use.group === "activations" || use.group === "scratch");
  const slots: { bytes: number; storages: number[]; names: string[]; uses: Use[] }[] = [];
  for (const use of [...passing].sort((a, b) => b.bytes - a.bytes || a.storage - b.storage)) {
    const free = slots.filter((slot) =>
      slot.uses.every((other) => other.last < use.first || use.last < other.first)
    );
    const slot = free[free.length - 1];
    if (slot === undefined) {
      slots.push({ bytes: use.bytes, storages: [use.storage], names: [use.name], uses: [use] });
    } else {
      slot.storages.push(use.storage);
      slot.names.push(use.name);
      slot.uses.push(use);
    }
  }
  const groups = { state: 0, batch: 0, constants: 0, activations: 0, scratch: 0 };
  for (const { group, bytes } of uses) {
    if (group !== "activations" && group !== "scratch") groups[group] += bytes;
  }

  // The moment of most need, among what comes and goes.
  const change = new Float64Array(kernels + 2);
  const scratchChange = new Float64Array(kernels + 2);
  for (const use of passing) {
    const of = use.group === "scratch" ? scratchChange : change;
    of[use.first] += use.bytes;
    of[use.last + 1] -= use.bytes;
  }
  let activations = 0, scratch = 0, peak = 0;
  for (let at = 0; at <= kernels; at++) {
    activations += change[at];
    scratch += scratchChange[at];
    if (activations + scratch > peak) {
      peak = activations + scratch;
      groups.activations = activations;
      groups.scratch = scratch;
    }
  }
  const resident = groups.state + groups.batch + groups.constants;
  return {
    slots: slots.map(({ bytes, storages, names }) => ({ bytes, storages, names })),
    groups,
    needed: resident + peak,
    total: resident + slots.reduce((total, slot) => total + slot.bytes, 0),
  };
};
