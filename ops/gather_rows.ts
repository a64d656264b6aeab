/** Gathers the rows of a table that a selection names, and scatters them back. */
import { NONE, type Selection } from "./compact_rows.ts";
import { requireWhole, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, type Op, type Tensor } from "./graph/tensor.ts";
import { vectorized } from "./kernels/vectorized.ts";
import { kernel } from "./kernels/wgsl.ts";

/** What gathering and scattering need of a selection. */
export type RowIndices = Pick<Selection, "indices" | "positions">;

/** The selected rows of x: [M, D] to [capacity, D], zeros in unused entries. */
export const gatherRows = (x: Tensor, { indices, positions }: RowIndices): Tensor =>
  gatherOp([x, indices, positions]);

/** The reverse: y [capacity, D] to [M, D], zeros in rows that are not selected. */
export const scatterRows = (y: Tensor, { indices, positions }: RowIndices): Tensor =>
  gatherOp([y, positions, indices]);

/**
 * table[start + indices[r]] for a table [M] and indices [R], both u32, as [R]; 0xffffffff where the index is
 * 0xffffffff. No gradient.
 */
export const gatherIndices = (table: Tensor, indices: Tensor, start = 0): Tensor =>
  lookUpOp([table, indices], { start });

/**
 * x [M, D], indices [R] and, for every row of x, its position among the indices [M]. A row is gathered at most once, so
 * that scattering is gathering with indices and positions exchanged.
 */
const gatherOp: Op = defineOp("gatherRows", {
  takes: ["f32", "u32", "u32"],
  shape: ([x, indices, positions]) =>
    x.shape.length === 2 && indices.shape.length === 1 && positions.shape[0] === x.shape[0]
      ? [indices.shape[0], x.shape[1]]
      : shapeError(
        "gatherRows",
        "rows [M, D], indices [R], positions [M]",
        x.shape,
        indices.shape,
        positions.shape,
      ),
  kernels: ({ inputs: [x, indices], output, adapter }) => {
    const { bind, width, alias } = vectorized(x.shape[1]);
    const lanes = x.shape[1] / width;
    const each = adapter.cpu ? lanes : 1;
    return [kernel({
      label: "gatherRows",
      reads: { x: bind(x), indices },
      writes: { y: bind(output) },
      sizes: { lanes, each },
      threads: sizeOf(output.shape) / width / each,
      functions: alias,
      main: /* wgsl */ `
  let first = id * p.each;
  let row = indices[first / p.lanes];
  for (var i = first; i < first + p.each; i++) {
    if (row == ${NONE}) { y[i] = T(0.0); } else { y[i] = x[row * p.lanes + i % p.lanes]; }
  }`,
    })];
  },
  backward: (
    { inputs: [, indices, positions], gradient },
  ) => [gatherOp([gradient, positions, indices]), null, null],
});

const lookUpOp = defineOp<{ readonly start: number }>("lookUp", {
  takes: ["u32", "u32"],
  shape: ([table, indices], { start }) => {
    requireWhole("lookUp", { start }, 0, table.shape, indices.shape);
    return table.shape.length === 1 && indices.shape.length === 1
      ? indices.shape
      : shapeError("lookUp", "table [M] and indices [R]", table.shape, indices.shape);
  },
  dtype: "u32",
  kernels: ({ inputs: [table, indices], output, attributes: { start } }) => [kernel({
    label: "lookUp",
    reads: { table, indices },
    writes: { y: output },
    sizes: { start },
    threads: sizeOf(indices.shape),
    main: /* wgsl */ `
  if (indices[id] == ${NONE}) { y[id] = ${NONE}; } else { y[id] = table[p.start + indices[id]]; }`,
  })],
});
