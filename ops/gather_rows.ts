/** Reads the rows of a table that a selection names, and puts such rows back. */
import { NONE, type Selection } from "./compact_rows.ts";
import { shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, type Op, type Tensor } from "./graph/tensor.ts";
import { vectorized } from "./kernels/vectorized.ts";
import { kernel } from "./kernels/wgsl.ts";

type Places = Pick<Selection, "indices" | "positions">;

/** The chosen rows of x: [M, D] to [capacity, D], zeros in unused entries. */
export const gatherRows = (x: Tensor, { indices, positions }: Places): Tensor =>
  gatherOp([x, indices, positions]);

/** The reverse: y [capacity, D] to [M, D], zeros in rows that are not chosen. */
export const scatterRows = (y: Tensor, { indices, positions }: Places): Tensor =>
  gatherOp([y, positions, indices]);

/**
 * Entries of a u32 table [M] at `indices` [R], u32, counted from entry `start` on: [R], with 0xffffffff where the index is
 * that.
 */
export const gatherIndices = (table: Tensor, indices: Tensor, start = 0): Tensor =>
  lookUpOp([table, indices], { start });

/**
 * x [M, D], indices [R], and for every row of x its place among the indices [M]. A row is taken at most once, so that
 * scattering is gathering with the two exchanged.
 */
const gatherOp: Op = defineOp("gatherRows", {
  shape: ([x, indices, places]) =>
    x.shape.length === 2 && indices.shape.length === 1 && places.shape[0] === x.shape[0]
      ? [indices.shape[0], x.shape[1]]
      : shapeError(
        "gatherRows",
        "rows [M, D], indices [R], places [M]",
        x.shape,
        indices.shape,
        places.shape,
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
    { inputs: [, indices, places], gradient },
  ) => [gatherOp([gradient, places, indices]), null, null],
});

const lookUpOp = defineOp<{ readonly start: number }>("lookUp", {
  shape: ([table, indices]) =>
    table.shape.length === 1 && indices.shape.length === 1
      ? indices.shape
      : shapeError("lookUp", "table [M] and indices [R]", table.shape, indices.shape),
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
