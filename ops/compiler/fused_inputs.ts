/**
 * What a fused kernel reads, and the iteration space that it runs over.
 *
 * Chains of elementwise ops become one kernel, and reductions read their inputs through such chains. Every fused kernel
 * runs over G groups, R rows and C columns; it reads each input with one stride along each of the three. What does not
 * change from row to row (normalisation constants, say) is computed once, before the loop over rows.
 */
import { alignmentOf, type Operand } from "../graph/kernel.ts";
import {
  type Access,
  broadcastLayout,
  commonSizes,
  composed,
  fitsFusedKernel,
  type Layout,
  stridesAlong,
} from "../graph/layout.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { sameShape, sizeOf } from "../graph/shape.ts";
import { isOp, type OpTensor, storageOf, type Tensor } from "../graph/tensor.ts";
import { isReduction, isScalar } from "./graph.ts";

/** A tensor in memory with the layout and offset by which an expression reads it. */
export interface FusedInput {
  readonly tensor: Tensor;
  readonly layout: Layout;
  readonly offset: number;
}

/** The layout that reads `size` elements in order. */
export const identity = (size: number): Layout => size === 1 ? [] : [{ size, stride: 1 }];

/** How the elementwise op that computes `x` reads one of its inputs. */
export const accessOf = ({ source: { op, attributes }, shape }: OpTensor, input: Tensor): Access =>
  op.access?.(input.shape, attributes) ?? { layout: broadcastLayout(input.shape, shape), offset: 0 };

/**
 * All that the fused kernel of `root` reads if it computes the tensors that are inlined. Null where strides cannot
 * express it.
 */
export const fusedInputs = (
  root: Tensor,
  isInlined: (x: Tensor) => boolean,
): readonly FusedInput[] | null => {
  if (!isOp(root)) return null;
  const inputs: FusedInput[] = [];
  const visit = (input: FusedInput) => void inputs.push(input);
  const complete = isReduction(root)
    ? termsOf(root).every((term) => visitStored(term, identity(sizeOf(term.shape)), isInlined, visit))
    : visitInputs(root, identity(sizeOf(root.shape)), isInlined, visit);
  return complete && iterationSpaceOf(root, inputs) !== null ? inputs : null;
};

/**
 * The same for a kernel that computes several elementwise tensors of one size; what they read of each other need not be
 * loaded. Null where one kernel cannot compute them.
 */
export const fusedInputsOfAll = (
  roots: readonly Tensor[],
  isInlined: (x: Tensor) => boolean,
): readonly FusedInput[] | null => {
  const isWithin = computedWithin(roots, isInlined);
  const inputs: FusedInput[] = [];
  for (const root of roots) {
    const ofRoot = fusedInputs(root, isWithin);
    if (ofRoot === null) return null;
    inputs.push(...ofRoot);
  }
  return iterationSpaceOf(roots[0], inputs) === null ? null : inputs;
};

/** Whether the kernel of `roots` computes a tensor itself. */
export const computedWithin =
  (roots: readonly Tensor[], isInlined: (x: Tensor) => boolean) => (x: Tensor): boolean =>
    roots.includes(x) || isInlined(x);

/** Visits the tensors in memory that hold `x`, read by `layout`; false where strides cannot express it. */
const visitStored = (
  x: Tensor,
  layout: Layout,
  isInlined: (x: Tensor) => boolean,
  visit: (input: FusedInput) => void,
): boolean => {
  if (x.source.kind === "reshape") return visitStored(x.source.of, layout, isInlined, visit);
  if (!isInlined(x)) {
    if (!isScalar(x)) visit({ tensor: x, layout, offset: 0 });
    return true;
  }
  return isOp(x) && visitInputs(x, layout, isInlined, visit);
};

const visitInputs = (
  x: OpTensor,
  layout: Layout,
  isInlined: (x: Tensor) => boolean,
  visit: (input: FusedInput) => void,
): boolean =>
  x.source.inputs.every((input) => {
    const access = accessOf(x, input);
    // An offset counts elements of memory, so what it is applied to has to be stored.
    if (access.offset !== 0 && isInlined(storageOf(input))) return false;
    const inner = composed(layout, access.layout);
    return inner !== null &&
      visitStored(
        input,
        inner,
        isInlined,
        (stored) => visit({ ...stored, offset: stored.offset + access.offset }),
      );
  });

/** The inputs that a reduction sums; a count of rows may follow them. */
export const termsOf = ({ source: { inputs } }: OpTensor): readonly Tensor[] =>
  inputs.filter((x) => x.dtype === "f32" && sameShape(x.shape, inputs[0].shape));

/** The label of a fused kernel: the names of the ops whose results it stores, each once. */
export const fusedLabel = (roots: readonly OpTensor[]): string =>
  [...new Set(roots.map(({ source }) => source.op.name))].join(" ");

/** What a fused kernel runs over; the running index is (group · rows + row) · columns + column. */
export interface IterationSpace {
  readonly columns: number;
  readonly rows: number;
  readonly groups: number;
}

/** Widths of the rows that a space without broadcasting is cut into, the best first. */
const SHORT_ROWS = [32, 16, 8, 4];

/**
 * The iteration space of the kernel that computes `root` and reads `inputs`; null where three strides do not suffice.
 */
export const iterationSpaceOf = (root: Tensor, inputs: readonly FusedInput[]): IterationSpace | null => {
  const layouts = inputs.map(({ layout }) => layout);
  if (isOp(root) && isReduction(root)) return reductionSpace(root, layouts);
  const total = sizeOf(root.shape);
  const sizes = commonSizes(layouts, total);
  if (sizes === null || !fitsFusedKernel(layouts, total)) return null;
  if (sizes.length > 1) return { columns: sizes[0], rows: sizes[1], groups: sizes[2] ?? 1 };
  // No broadcasting: split the flat index into rows of up to 32 elements, so that neighbouring invocations read
  // neighbouring words and each goes on near where it was.
  const columns = SHORT_ROWS.find((width) => total % width === 0) ?? 1;
  return { columns, rows: total / columns, groups: 1 };
};

/** The space of a reduction is that of its terms: [groups, rows, columns]. */
const reductionSpace = (root: OpTensor, layouts: readonly Layout[]): IterationSpace | null => {
  const [{ shape }] = termsOf(root);
  const total = sizeOf(shape);
  const columns = shape[shape.length - 1];
  const rows = root.source.op.reduction === "columns" ? shape[1] : total / columns;
  const cuts = [columns, columns * rows];
  const sizes = commonSizes(layouts, total, cuts);
  const axes = commonSizes([], total, cuts)!;
  return sizes !== null && sizes.length === axes.length
    ? { columns, rows, groups: total / columns / rows }
    : null;
};

/** The strides of a layout along columns, rows and groups. */
export const stridesIn = (
  layout: Layout,
  { columns, rows, groups }: IterationSpace,
): readonly [column: number, row: number, group: number] => {
  // Axes of size 1 do not occur in a layout: their stride is 0.
  const sizes = [columns, rows, groups];
  const strides = stridesAlong(layout, sizes.filter((size) => size > 1));
  const [column, row, group] = sizes.map((size) => size > 1 ? strides.shift()! : 0);
  return [column, row, group];
};

/** The rows that one kernel computes: some of one group, or with `group` null those of all groups. */
export interface RowSlice {
  readonly group: number | null;
  readonly first: number;
  readonly rows: number;
}

/** Elements that a slice of an input may begin before its first row, for alignment (256 bytes). */
const ALIGNMENT_SLACK = 64;

/** Cuts an iteration space into slices whose inputs and `output` (elements) fit one binding each. */
export const slicesOf = (
  space: IterationSpace,
  inputs: readonly FusedInput[],
  output: number,
  { maxBinding }: AdapterTraits,
): readonly RowSlice[] => {
  const { columns, rows, groups } = space;
  const most = maxBinding / 4;
  if (Math.max(output, ...inputs.map(({ tensor }) => sizeOf(tensor.shape))) <= most) {
    return [{ group: null, first: 0, rows }];
  }
  const longestRow = Math.max(columns, ...inputs.map(({ layout }) => stridesIn(layout, space)[1]));
  const rowsPerSlice = Math.max(1, Math.floor((most - ALIGNMENT_SLACK) / longestRow));
  const slices: RowSlice[] = [];
  for (let group = 0; group < groups; group++) {
    for (let first = 0; first < rows; first += rowsPerSlice) {
      slices.push({ group, first, rows: Math.min(rowsPerSlice, rows - first) });
    }
  }
  return slices;
};

/** The part of an operand that a kernel binds, and how many elements of it to skip. */
export interface Window {
  readonly operand: Operand;
  readonly skip: number;
}

/** The window of `length` elements from `start` on; it begins at the multiple of the alignment before. */
export const windowOf = (operand: Operand, start: number, length: number): Window => {
  const skip = start % alignmentOf(operand);
  return { operand: { ...operand, offset: operand.offset + start - skip, shape: [length + skip] }, skip };
};
