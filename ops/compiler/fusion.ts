/** Vertical fusion: which elementwise tensors are computed inside the kernels that read them. */
import type { AdapterTraits } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { storageOf, type Tensor } from "../graph/tensor.ts";
import { fusedInputs } from "./fused_inputs.ts";
import { isElementwise, isFused } from "./graph.ts";

/**
 * Which elementwise tensors are computed inside the kernels that use them instead of being stored. One with a single
 * reader always is. One with several is where it reads at most two large tensors: computing it again then costs no more
 * memory traffic than storing it would.
 */
export const chooseInlined = (
  live: readonly Tensor[],
  kept: ReadonlySet<number>,
  traits: AdapterTraits,
): Set<number> => {
  const readers = new Map<number, Tensor[]>();
  for (const x of live) {
    if (x.source.kind !== "op") continue;
    for (const input of x.source.inputs) {
      const storage = storageOf(input);
      readers.set(storage.id, [...readers.get(storage.id) ?? [], x]);
    }
  }
  const inlined = new Set<number>();
  const isInlined = (x: Tensor) => inlined.has(x.id);
  const most = traits.maxStorageBuffers - 2;
  for (const x of live) {
    if (!isFused(x)) continue;
    // Too many tensors for one shader, or read in ways that strides do not describe: store some inputs after all.
    let leaves = fusedInputs(x, isInlined);
    while (leaves === null || new Set(leaves.map((leaf) => leaf.tensor.id)).size > most) {
      const candidates = x.source.kind === "op"
        ? x.source.inputs.map(storageOf).filter((input) => inlined.has(input.id))
        : [];
      if (candidates.length === 0) {
        throw new Error(`cannot fuse ${x.source.kind === "op" ? x.source.op.name : "?"}`);
      }
      const count = (input: Tensor) => fusedInputs(input, isInlined)?.length ?? Infinity;
      inlined.delete(candidates.sort((a, b) => count(b) - count(a))[0].id);
      leaves = fusedInputs(x, isInlined);
    }
    if (!isElementwise(x) || kept.has(x.id)) continue;
    const users = readers.get(x.id) ?? [];
    if (!users.every(isFused)) continue;
    const large = new Set(
      leaves.filter((leaf) => sizeOf(leaf.tensor.shape) >= sizeOf(x.shape)).map((l) => l.tensor.id),
    );
    if (users.length === 1 ? leaves.length <= 8 : large.size <= 2 && leaves.length <= 6) inlined.add(x.id);
  }
  return inlined;
};
