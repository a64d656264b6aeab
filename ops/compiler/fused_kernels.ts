/** The kernels of elementwise tensors, and what they share with those of reductions. */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { AdapterTraits, Variants } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import type { OpTensor } from "../graph/tensor.ts";
import { kernel, vectors } from "../kernels/wgsl.ts";
import type { EmissionContext } from "./emission_context.ts";
import { bodyOf, type FusedSlice } from "./fused_body.ts";
import {
  computedWithin,
  fusedInputsOfAll,
  fusedLabel,
  type IterationSpace,
  iterationSpaceOf,
  type RowSlice,
  slicesOf,
  type Window,
  windowOf,
} from "./fused_inputs.ts";

/** Invocations from which on each takes more rows: enough to keep a device busy. Estimates, not measured. */
const BUSY = { cpu: 32, gpu: 16384 };

/** How many rows of so many lanes an invocation takes, at most `most`: as few as keep the device busy. */
export const rowsPerInvocation = (
  rows: number,
  lanes: number,
  { cpu }: AdapterTraits,
  most: number,
): number => {
  const invocations = cpu ? BUSY.cpu : BUSY.gpu;
  return Math.max(1, Math.min(most, Math.ceil((rows * lanes) / invocations), rows));
};

/** Elements from which on a fused kernel has variants: with fewer it is too short for timings to tell them apart. */
const FEW_ELEMENTS = 2 ** 18;

/**
 * Kernels for several limits on the rows that an invocation takes, the best guess first; of small tensors only that.
 */
export const rowLimitVariants = (
  elements: number,
  limits: readonly number[],
  kernels: (most: number) => readonly Kernel[],
): Variants =>
  Object.fromEntries(
    (elements < FEW_ELEMENTS ? limits.slice(0, 1) : limits).map((most) => [
      `${most} rows each`,
      () => kernels(most),
    ]),
  );

/** Reads sizes once instead of in every row: software adapters check each access to a uniform. */
export const SIZES = "let p = p;";

/** Sets `column`, `block` (the group), and the rows from `first` to `last` that an invocation takes. */
export const INDICES = /* wgsl */ `
  ${SIZES}
  let column = id % p.lanes;
  let block = id / p.lanes / p.chunks;
  let first = id / p.lanes % p.chunks * p.each;
  var last = min(first + p.each, p.rows);`;

/**
 * The kernels that compute elementwise tensors of one size together. Where one is updated in place, they read the
 * current value through the binding that they write to.
 */
export const elementwiseKernels = (
  roots: readonly OpTensor[],
  context: EmissionContext,
): readonly Kernel[] => {
  const { isInlined, adapter, choose } = context;
  const inputs = fusedInputsOfAll(roots, isInlined)!;
  const space = iterationSpaceOf(roots[0], inputs)!;
  const size = sizeOf(roots[0].shape);
  const slices = slicesOf(space, inputs, size, adapter);
  return choose(rowLimitVariants(
    size,
    adapter.cpu ? [128, 32] : [8, 2, 32],
    (most) => slices.map((slice) => elementwiseKernel(roots, { inputs, space, slice }, most, context)),
  ));
};

/** The kernel of one slice, whose invocations take at most `most` rows. */
const elementwiseKernel = (
  roots: readonly OpTensor[],
  fused: FusedSlice,
  most: number,
  { isInlined, inPlace, operandOf, adapter }: EmissionContext,
): Kernel => {
  const { space, slice } = fused;
  const results = roots.map((_, i) => `result${i}`);
  const overwritten = new Map(roots.flatMap((root, i) => {
    const current = inPlace.get(root);
    return current === undefined ? [] : [[current, results[i]]];
  }));
  const body = bodyOf({
    ...{ ...fused, roots, operandOf, overwritten },
    isComputed: computedWithin(roots, isInlined),
  });
  const groups = slice.group === null ? space.groups : 1;
  const lanes = space.columns / body.width;
  const each = rowsPerInvocation(slice.rows * groups, lanes, adapter, most);
  const chunks = Math.ceil(slice.rows / each);
  const windows = roots.map((root) => windowOfRows(operandOf(root), space, slice));
  return kernel({
    label: fusedLabel(roots),
    reads: body.reads,
    writes: Object.fromEntries(
      windows.map(({ operand }, i) => [results[i], body.width === 4 ? vectors(operand) : operand]),
    ),
    sizes: { ...body.sizes, lanes, chunks, each, rows: slice.rows, skip: windows[0].skip / body.width },
    threads: lanes * chunks * groups,
    functions: body.functions,
    main: `${INDICES}
  ${body.hoisted}
  for (var row = first; row < last; row++) {
    ${body.loopBody}
    let at = (block * p.rows + row) * p.lanes + column + p.skip;
    ${results.map((name, i) => `${name}[at] = ${body.values[i]};`).join("\n    ")}
  }`,
  });
};

/** The part of a result that holds the rows of a slice. */
const windowOfRows = (operand: Operand, { rows, columns }: IterationSpace, slice: RowSlice): Window =>
  slice.group === null ? { operand, skip: 0 } : windowOf(
    operand,
    (slice.group * rows + slice.first) * columns,
    slice.rows * columns,
  );
