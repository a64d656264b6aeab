/** The memory plan: which tensor lies where in which buffer, and how much the whole takes. */
import type { Kernel } from "../graph/kernel.ts";

export interface Lifetime {
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
  readonly groups: Readonly<Record<Lifetime["group"], number>>;
  /** The most bytes that are in use at one moment. */
  readonly needed: number;
  /** What the program reserves in all: `needed` plus what sharing buffers wastes. */
  readonly total: number;
}

export interface Slot {
  readonly bytes: number;
  /** The largest tensor in it. */
  readonly name: string;
  readonly allocations: readonly { readonly storage: number; readonly offset: number }[]; // in bytes
}

/** Bindings may begin at multiples of so many bytes on every adapter. */
const ALIGNMENT = 256;

/**
 * Gives tensors places in buffers, the largest first, each the first one that is free all its life. Several may lie beside
 * each other in a buffer, but none that a kernel reads beside one that it writes: WebGPU does not let a kernel do both in
 * one buffer.
 */
export const planMemory = (uses: readonly Lifetime[], kernels: readonly Kernel[]): MemoryPlan => {
  const passing = uses.filter((use) => use.group === "activations" || use.group === "scratch");
  const apart = readWriteConflicts(kernels);
  const slots: { readonly bytes: number; readonly placed: Allocation[] }[] = [];
  for (const use of [...passing].sort((a, b) => b.bytes - a.bytes || a.storage - b.storage)) {
    let offset: number | null = null;
    const slot = slots.find((slot) => (offset = freeOffset(use, slot, apart.get(use.storage))) !== null);
    if (slot === undefined) slots.push({ bytes: use.bytes, placed: [{ use, offset: 0 }] });
    else slot.placed.push({ use, offset: offset! });
  }
  const groups = { state: 0, batch: 0, constants: 0, activations: 0, scratch: 0 };
  for (const { group, bytes } of uses) {
    if (group !== "activations" && group !== "scratch") groups[group] += bytes;
  }

  // The moment of most need, among what comes and goes.
  const change = new Float64Array(kernels.length + 2);
  const scratchChange = new Float64Array(kernels.length + 2);
  for (const use of passing) {
    const of = use.group === "scratch" ? scratchChange : change;
    of[use.first] += use.bytes;
    of[use.last + 1] -= use.bytes;
  }
  let activations = 0, scratch = 0, peak = 0;
  for (let at = 0; at <= kernels.length; at++) {
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
    slots: slots.map(({ bytes, placed }) => ({
      bytes,
      name: placed[0].use.name,
      allocations: placed.map(({ use: { storage }, offset }) => ({ storage, offset })),
    })),
    groups,
    needed: resident + peak,
    total: resident + slots.reduce((total, slot) => total + slot.bytes, 0),
  };
};

interface Allocation {
  readonly use: Lifetime;
  readonly offset: number; // in bytes
}

/** Where in a buffer there is room as long as `use` lives; null where there is none, or what is kept apart lies there. */
const freeOffset = (
  use: Lifetime,
  { bytes, placed }: { readonly bytes: number; readonly placed: readonly Allocation[] },
  apart: ReadonlySet<number> | undefined,
): number | null => {
  const beside: Allocation[] = [];
  for (const other of placed) {
    if (other.use.last < use.first || use.last < other.use.first) continue;
    if (apart?.has(other.use.storage)) return null;
    beside.push(other);
  }
  beside.sort((a, b) => a.offset - b.offset);
  let offset = 0;
  for (const other of beside) {
    if (offset + use.bytes <= other.offset) return offset;
    offset = Math.max(offset, Math.ceil((other.offset + other.use.bytes) / ALIGNMENT) * ALIGNMENT);
  }
  return offset + use.bytes <= bytes ? offset : null;
};

/** For each storage those that a kernel writes while it reads this one, or the other way round. */
const readWriteConflicts = (kernels: readonly Kernel[]): ReadonlyMap<number, ReadonlySet<number>> => {
  const apart = new Map<number, Set<number>>();
  const keep = (one: number, other: number) => {
    const others = apart.get(one);
    if (others === undefined) apart.set(one, new Set([other]));
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
        keep(written, read);
        keep(read, written);
      }
    }
  }
  return apart;
};
