/**
 * Bundling: next values of the state that one kernel can compute together, as those of a parameter and its momentum, or
 * those of all small parameters of one shape. There are hundreds of them, and a dispatch for each would take longer than
 * its work.
 */
import { sizeOf } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { fusedInputsOfAll } from "./fused_inputs.ts";
import { isElementwise } from "./graph.ts";

/** Elements up to which tensors are small: larger ones are bundled with neighbours in the schedule only. */
const SMALL = 2 ** 16;

interface FusedUpdates {
  readonly members: Tensor[];
  /** Where in the schedule it may come: after all that its members read, and before all that reads them. */
  ready: number;
  due: number;
  last: number; // the place of its last member so far
}

/**
 * The schedule in bundles; most have one member. `next` are the values to be bundled, `readsOf` says what the kernel of
 * a tensor reads, and `most` how many buffers a kernel may bind.
 */
export const fusedHorizontally = (
  scheduled: readonly Tensor[],
  { next, levels, readsOf, inlined, most }: {
    readonly next: ReadonlySet<Tensor>;
    readonly levels: ReadonlyMap<number, number>;
    readonly readsOf: (x: Tensor) => readonly Tensor[];
    readonly inlined: (x: Tensor) => boolean;
    readonly most: number;
  },
): readonly (readonly Tensor[])[] => {
  const place = new Map(scheduled.map((x, i) => [x, i]));
  const readers = new Map<Tensor, Tensor[]>();
  for (const x of scheduled) {
    for (const read of readsOf(x)) readers.set(read, [...readers.get(read) ?? [], x]);
  }
  const open = new Map<string, FusedUpdates>();
  const bundles: FusedUpdates[] = [];

  for (const [i, x] of scheduled.entries()) {
    const alone: FusedUpdates = { members: [x], ready: i, due: i, last: i };
    if (!next.has(x) || !isElementwise(x)) {
      bundles.push(alone);
      continue;
    }
    const key = `${levels.get(x.id)} ${x.shape.join()}`;
    const bundle = open.get(key);
    const members = [...bundle?.members ?? [], x];
    const outside = (of: readonly Tensor[]) =>
      of.filter((other) => !members.includes(other)).map((other) => place.get(other) ?? -1);
    const ready = Math.max(-1, bundle?.ready ?? -1, ...outside(readsOf(x)));
    const due = Math.min(Infinity, ...members.flatMap((member) => outside(readers.get(member) ?? []))) - 1;
    const leaves = bundle === undefined ? null : fusedInputsOfAll(members, inlined);
    const fits = bundle !== undefined && leaves !== null && ready <= due &&
      (sizeOf(x.shape) <= SMALL || bundle.last === i - 1) &&
      new Set(leaves.map(({ tensor }) => tensor)).size + members.length <= most;
    if (fits) {
      bundle.members.push(x);
      Object.assign(bundle, { ready, due, last: i });
    } else {
      const begun = { ...alone, ready: Math.max(-1, ...outside(readsOf(x))), due };
      open.set(key, begun);
      bundles.push(begun);
    }
  }
  const turn = ({ due, last }: FusedUpdates) => Math.min(due, last) + (last > due ? 0.5 : 0);
  return bundles.toSorted((a, b) => turn(a) - turn(b)).map(({ members }) => members);
};
