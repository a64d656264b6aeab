/** The kernels of sums over rows and columns, whose terms may be fused elementwise ops. */
import type { Kernel, Operand } from "../graph/kernel.ts";
import { sizeOf } from "../graph/shape.ts";
import type { OpTensor, Tensor } from "../graph/tensor.ts";
import { sumPartials } from "../kernels/partial_sums.ts";
import { type RowSplit, rowVariants } from "../kernels/row_reduction.ts";
import { kernel, vectors } from "../kernels/wgsl.ts";
import type { EmissionContext } from "./emission_context.ts";
import { bodyOf, type FusedBody, type FusedSlice } from "./fused_body.ts";
import { fusedInputs, iterationSpaceOf, slicesOf, termsOf } from "./fused_inputs.ts";
import { INDICES, rowLimitVariants, rowsPerInvocation, SIZES } from "./fused_kernels.ts";

/**
 * The fewest rows that an invocation sums, so that partial sums take at most an eighth of the memory of their terms.
 */
const FEWEST_ROWS = 8;

/**
 * Sums over rows: terms of [G, R, C] to [G, terms, C]. Partial sums of some rows each are added up in further passes,
 * in a fixed order, so that the result is the same in every run.
 */
export const columnSumKernels = (root: OpTensor, context: EmissionContext): readonly Kernel[] => {
  const { isInlined, operandOf, scratch, adapter, choose } = context;
  const inputs = fusedInputs(root, isInlined)!;
  const space = iterationSpaceOf(root, inputs)!;
  const terms = termsOf(root);
  const { columns, rows, groups } = space;
  const rowCount = root.source.inputs.length > terms.length
    ? operandOf(root.source.inputs[terms.length])
    : null;
  const slices = slicesOf(space, inputs, 0, adapter);
  const output = operandOf(root);

  const kernelsFor = (most: number): readonly Kernel[] => {
    const each = Math.max(FEWEST_ROWS, rowsPerInvocation(rows * groups, columns / 4, adapter, most));
    const chunksOf = (rows: number) => Math.ceil(rows / each);
    const chunks = slices.filter(({ group }) => (group ?? 0) === 0)
      .reduce((total, { rows }) => total + chunksOf(rows), 0);
    const width = terms.length * columns;
    const partials = chunks === 1 ? output : scratch([groups, chunks, width]);
    let start = 0;
    const sums = slices.map((slice) => {
      const chunk = { rows: each, count: chunksOf(slice.rows), start };
      if (slice.group !== null) start += chunk.count;
      return columnSumKernel({ inputs, space, slice }, chunk, { terms, rowCount, partials, context });
    });
    return chunks === 1 ? sums : [...sums, ...sumPartials(partials, output, groups, chunks, width, scratch)];
  };
  return choose(rowLimitVariants(columns * rows * groups, adapter.cpu ? [512, 128] : [512, 64], kernelsFor));
};

/** Rows of a group that one invocation of each column sums. */
interface Chunk {
  readonly rows: number;
  /** How many chunks the slice has, in each of its groups. */
  readonly count: number;
  /** The first of them among the chunks of all slices. */
  readonly start: number;
}

/**
 * The kernel that sums the rows of each chunk of a slice; with `rowCount` ([1], u32) only so many of the group's rows.
 */
const columnSumKernel = (
  fused: FusedSlice,
  chunk: Chunk,
  { terms, rowCount, partials, context }: {
    readonly terms: readonly Tensor[];
    readonly rowCount: Operand | null;
    readonly partials: Operand;
    readonly context: EmissionContext;
  },
): Kernel => {
  const { space: { columns, groups }, slice } = fused;
  const body = bodyOfTerms(terms, fused, context);
  const lanes = columns / body.width;
  return kernel({
    label: "columnSums",
    reads: { ...body.reads, ...(rowCount === null ? {} : { count: rowCount }) },
    writes: { partial: body.width === 4 ? vectors(partials) : partials },
    sizes: {
      ...body.sizes,
      ...{ lanes, chunks: chunk.count, each: chunk.rows, rows: slice.rows },
      ...{ start: chunk.start, before: slice.first },
    },
    threads: lanes * chunk.count * (slice.group === null ? groups : 1),
    functions: body.functions,
    main: `${INDICES}
  ${rowCount === null ? "" : "last = min(last, max(count[0], p.before) - p.before);"}
  ${body.hoisted}
  ${terms.map((_, t) => `var sum${t} = T(0.0);`).join("\n  ")}
  for (var row = first; row < last; row++) {
    ${body.loopBody}
    ${body.values.map((value, t) => `sum${t} += ${value};`).join("\n    ")}
  }
  let at = (id / p.lanes + p.start) * ${terms.length}u * p.lanes + column;
  ${terms.map((_, t) => `partial[at + ${t}u * p.lanes] = sum${t};`).join("\n  ")}`,
  });
};

/** Sums over the last axis: terms of [..., C] to [..., terms]. */
export const rowSumKernels = (root: OpTensor, context: EmissionContext): readonly Kernel[] => {
  const { isInlined, operandOf, adapter, choose } = context;
  const inputs = fusedInputs(root, isInlined)!;
  const space = iterationSpaceOf(root, inputs)!;
  const terms = termsOf(root);
  const slices = slicesOf(space, inputs, sizeOf(root.shape), adapter);
  return choose(rowVariants(
    space.columns,
    adapter,
    (split) =>
      slices.map((slice) => {
        const fused = { inputs, space, slice };
        return rowSumKernel(fused, split, {
          body: bodyOfTerms(terms, fused, context),
          result: operandOf(root),
        });
      }),
  ));
};

/** The kernel that sums the columns of each row of a slice, which `split` divides among invocations. */
const rowSumKernel = (
  { space, slice }: FusedSlice,
  split: RowSplit,
  { body, result }: { readonly body: FusedBody; readonly result: Operand },
): Kernel => {
  const terms = body.values.length;
  const work = split(slice.rows);
  const total = (t: number) => work.total(body.width === 4 ? `dot(sum${t}, T(1.0))` : `sum${t}`);
  // An invocation, or a workgroup, stays in its row and loops over columns: hoisted values are not the same in all
  // columns.
  return kernel({
    label: "rowSums",
    reads: body.reads,
    writes: { result },
    sizes: {
      ...body.sizes,
      ...{ lanes: space.columns / body.width, rows: slice.rows, before: slice.first },
    },
    ...work.launch,
    functions: `${body.functions}\n${work.functions}`,
    main: `
  ${SIZES}
  ${work.origin}
  let block = 0u;
  ${body.values.map((_, t) => `var sum${t} = T(0.0);`).join("\n  ")}
  for (var column = start; column < p.lanes; column += step) {
    ${body.hoisted}
    ${body.loopBody}
    ${body.values.map((value, t) => `sum${t} += ${value};`).join("\n    ")}
  }
  let at = (p.before + row) * ${terms}u;
  ${body.values.map((_, t) => `result[at + ${t}u] = ${total(t)};`).join("\n  ")}`,
  });
};

/** The body that computes the terms of a reduction. */
const bodyOfTerms = (
  terms: readonly Tensor[],
  fused: FusedSlice,
  { isInlined, operandOf }: EmissionContext,
): FusedBody =>
  bodyOf({ ...fused, roots: terms, operandOf, isComputed: isInlined, overwritten: NOT_OVERWRITTEN });

const NOT_OVERWRITTEN: ReadonlyMap<Tensor, string> = new Map();
