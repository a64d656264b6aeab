/**
 * Fusion: chains of elementwise ops become one kernel, and reductions read their inputs through such chains.
 *
 * Every fused kernel runs over a domain of G groups, R rows and C columns; each tensor that it reads is a leaf with a
 * stride along each of the three. What does not change from row to row (normalisation constants, say) is computed
 * once before the loop over rows.
 */
import { alignmentOf, type Operand } from "../graph/kernel.ts";
import {
  type Access,
  broadcastLayout,
  commonSizes,
  composed,
  type Layout,
  stridesAlong,
} from "../graph/layout.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { sameShape, type Shape, sizeOf } from "../graph/shape.ts";
import { type OpDefinition, storageOf, type Tensor } from "../graph/tensor.ts";
import { isReduction, isScalar } from "./graph.ts";

/** A tensor in memory, as one expression walks through it. */
export interface FusedInput {
  readonly tensor: Tensor;
  readonly layout: Layout;
  readonly offset: number;
}

export const identity = (size: number): Layout => size === 1 ? [] : [{ size, stride: 1 }];

/** The tensor whose memory holds `x`, with the layout that walks it in the order of `x`; null if it is none. */
const walk = (
  x: Tensor,
  layout: Layout,
  inlined: (x: Tensor) => boolean,
  visit: (leaf: FusedInput) => void,
): boolean => {
  if (x.source.kind === "reshape") return walk(x.source.of, layout, inlined, visit);
  if (!inlined(x)) {
    if (!isScalar(x)) visit({ tensor: x, layout, offset: 0 });
    return true;
  }
  return walkInputs(x, layout, inlined, visit);
};

const walkInputs = (
  x: Tensor,
  layout: Layout,
  inlined: (x: Tensor) => boolean,
  visit: (leaf: FusedInput) => void,
): boolean => {
  if (x.source.kind !== "op") return false;
  const { op, inputs, attributes } = x.source;
  return inputs.every((input) => {
    const access = accessOf(op, input, x.shape, attributes);
    // An offset is one of memory: what lies behind it cannot be computed on the way.
    if (access.offset !== 0 && inlined(storageOf(input))) return false;
    const inner = composed(layout, access.layout);
    return inner !== null &&
      walk(input, inner, inlined, (leaf) => visit({ ...leaf, offset: leaf.offset + access.offset }));
  });
};

export const accessOf = (
  op: OpDefinition<unknown>,
  input: Tensor,
  shape: Shape,
  attributes: unknown,
): Access =>
  op.access?.(input.shape, attributes) ?? { layout: broadcastLayout(input.shape, shape), offset: 0 };

/** Everything the fused kernel of `root` reads if the tensors that `inlined` names are computed in it; null if it cannot be. */
export const fusedInputs = (root: Tensor, inlined: (x: Tensor) => boolean): readonly FusedInput[] | null => {
  const leaves: FusedInput[] = [];
  const visit = (leaf: FusedInput) => leaves.push(leaf);
  if (root.source.kind !== "op") return null;
  const whole = identity(sizeOf(root.shape));
  const complete = isReduction(root)
    ? reduced(root).every((term) => walk(term, identity(sizeOf(term.shape)), inlined, visit))
    : walkInputs(root, whole, inlined, visit);
  return complete && iterationSpaceOf(root, leaves) !== null ? leaves : null;
};

/**
 * The same for several elementwise tensors of one size that one kernel computes: what they read of each other they need
 * not load. Null if it cannot be one kernel.
 */
export const fusedInputsOfAll = (
  roots: readonly Tensor[],
  inlined: (x: Tensor) => boolean,
): readonly FusedInput[] | null => {
  const within = isWithin(roots, inlined);
  const leaves: FusedInput[] = [];
  for (const root of roots) {
    const own = fusedInputs(root, within);
    if (own === null) return null;
    leaves.push(...own);
  }
  return iterationSpaceOf(roots[0], leaves) === null ? null : leaves;
};

export const isWithin = (roots: readonly Tensor[], inlined: (x: Tensor) => boolean) => (x: Tensor): boolean =>
  roots.includes(x) || inlined(x);

/** The inputs that a reduction sums; a row count may follow them. */
export const reduced = (root: Tensor): readonly Tensor[] => {
  if (root.source.kind !== "op") return [];
  const { inputs } = root.source;
  return inputs.filter((x) => x.dtype === "f32" && sameShape(x.shape, inputs[0].shape));
};

export interface IterationSpace {
  readonly columns: number;
  readonly rows: number;
  readonly groups: number;
}

/** Some rows of one group, or with `group` null all of the domain. */
export interface Block {
  readonly group: number | null;
  readonly first: number;
  readonly rows: number;
}

/** Cuts a domain into blocks in which no tensor takes more than one binding may hold. */
export const blocksOf = (
  domain: IterationSpace,
  leaves: readonly FusedInput[],
  output: number,
  { maxBinding }: AdapterTraits,
): Block[] => {
  const most = maxBinding / 4;
  const sizes = leaves.map((leaf) => sizeOf(leaf.tensor.shape));
  const { columns, rows, groups } = domain;
  if (Math.max(output, ...sizes) <= most) return [{ group: null, first: 0, rows }];
  const widest = Math.max(columns, ...leaves.map((leaf) => strides(leaf.layout, domain)[1]));
  const each = Math.max(1, Math.floor((most - 64) / widest));
  const blocks: Block[] = [];
  for (let group = 0; group < groups; group++) {
    for (let first = 0; first < rows; first += each) {
      blocks.push({ group, first, rows: Math.min(each, rows - first) });
    }
  }
  return blocks;
};

/** The `length` elements from `start` on. Bindings begin at round places: `skip` elements lie before. */
export const windowOf = (
  operand: Operand,
  start: number,
  length: number,
): { operand: Operand; skip: number } => {
  const skip = start % alignmentOf(operand);
  return { operand: { ...operand, offset: operand.offset + start - skip, shape: [length + skip] }, skip };
};

export const iterationSpaceOf = (root: Tensor, leaves: readonly FusedInput[]): IterationSpace | null => {
  const layouts = leaves.map((leaf) => leaf.layout);
  if (isReduction(root)) {
    const [term] = reduced(root);
    const columns = term.shape[term.shape.length - 1];
    const total = sizeOf(term.shape);
    const byColumns = root.source.kind === "op" && root.source.op.reduction === "columns";
    const rows = byColumns ? term.shape[1] : total / columns;
    const cuts = [columns, columns * rows];
    const sizes = commonSizes(layouts, total, cuts);
    const wanted = commonSizes([], total, cuts);
    return sizes !== null && wanted !== null && sizes.length === wanted.length
      ? { columns, rows, groups: total / columns / rows }
      : null;
  }
  const total = sizeOf(root.shape);
  const sizes = commonSizes(layouts, total);
  if (sizes === null || sizes.length > 3) return null;
  if (sizes.length > 1) return { columns: sizes[0], rows: sizes[1], groups: sizes[2] ?? 1 };
  // Nothing is broadcast along part of the index: cut it into short rows, so that neighbours read neighbouring words
  // and an invocation goes on close to where it was.
  const columns = [32, 16, 8, 4].find((n) => total % n === 0) ?? 1;
  return { columns, rows: total / columns, groups: 1 };
};

/** Strides of a layout along columns, rows and groups. */
export const strides = (
  layout: Layout,
  { columns, rows, groups }: IterationSpace,
): [number, number, number] => {
  // Axes of size 1 do not appear in a layout; leave them out and give them stride 0.
  const sizes = [columns, rows, groups];
  const kept = stridesAlong(layout, sizes.filter((size) => size > 1));
  return sizes.map((size) => (size > 1 ? kept.shift()! : 0)) as [number, number, number];
};
