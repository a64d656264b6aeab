/** Lifetimes: from which kernel to which a piece of memory is in use. */
import type { Kernel } from "../graph/kernel.ts";
import type { Storage } from "./buffer_assignment.ts";
import type { Lifetime } from "./memory_plan.ts";
import type { SyncPoint } from "./sync_points.ts";

/** The indices of the first and the last kernel that use a storage. */
export interface Use {
  readonly first: number;
  readonly last: number;
}

/** For each storage the kernels that bind it. */
export const kernelUses = (kernels: readonly Kernel[]): ReadonlyMap<number, Use> => {
  const uses = new Map<number, Use>();
  kernels.forEach(({ bindings, workgroups }, at) => {
    const operands = bindings.map(({ operand }) => operand);
    if ("indirect" in workgroups) operands.push(workgroups.indirect);
    for (const { storage } of operands) {
      uses.set(storage, { first: uses.get(storage)?.first ?? at, last: at });
    }
  });
  return uses;
};

/**
 * Uses by kernels and by exchanges: what is sent has to stay until its sync point, and what is received is written at
 * the end of the segment before the one that it is needed in.
 */
export const withExchanges = (
  byKernels: ReadonlyMap<number, Use>,
  syncPoints: readonly SyncPoint[],
): ReadonlyMap<number, Use> => {
  const uses = new Map(byKernels);
  for (const { after, exchanges } of syncPoints) {
    for (const { from, to, segment } of exchanges) {
      const sent = uses.get(from.storage);
      if (sent !== undefined) uses.set(from.storage, { ...sent, last: Math.max(sent.last, after - 1) });
      const written = syncPoints[segment - 1].after;
      uses.set(to.storage, { first: written, last: uses.get(to.storage)?.last ?? written });
    }
  }
  return uses;
};

/**
 * The lifetimes of all storages: those in `resident` always exist, those in `results` last until the end of the run,
 * which has `kernels` kernels. Scratch memory of variants that were turned down is never used: its last kernel is -1.
 */
export const lifetimesOf = (
  storages: readonly Storage[],
  uses: ReadonlyMap<number, Use>,
  { resident, results, kernels }: {
    readonly resident: ReadonlyMap<number, Lifetime["group"]>;
    readonly results: ReadonlySet<number>;
    readonly kernels: number;
  },
): readonly Lifetime[] =>
  storages.map(({ name, bytes, isScratch }, storage) => ({
    storage,
    name,
    bytes,
    group: resident.get(storage) ?? (isScratch ? "scratch" : "activations"),
    first: uses.get(storage)?.first ?? 0,
    last: results.has(storage) ? kernels : uses.get(storage)?.last ?? (isScratch ? -1 : 0),
  }));
