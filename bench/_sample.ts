/** Some rows of a result, to be read back and compared where the whole of it would take too long. */
import { assertClose } from "../ops/_test_kit.ts";
import { gatherRows } from "../ops/gather_rows.ts";
import { sizeOf } from "../ops/graph/shape.ts";
import { constant, reshape, type Tensor } from "../ops/graph/tensor.ts";

/** An op's result and how each element of it is found in another way. */
export interface Answer {
  readonly result: Tensor;
  /** The element at this place in row-major order. */
  readonly expected: (at: number) => number;
}

const ROWS = 8;

/** Places of the chosen rows, from the first to the last, at odd distances. */
const chosenRows = (
  rows: number,
): number[] => [
  ...new Set(Array.from({ length: ROWS }, (_, i) => Math.floor((rows - 1) * (i / (ROWS - 1)) ** 1.1))),
];

const rowsOf = ({ shape }: Tensor) => {
  const columns = shape[shape.length - 1];
  return { columns, rows: sizeOf(shape) / columns };
};

/**
 * Some rows of x (its last axis), [rows, columns]. All of x is computed and stored for it: rows are gathered by a kernel
 * of their own, which the compiler does not merge with what makes x.
 */
export const sampled = (x: Tensor): Tensor => {
  const { rows, columns } = rowsOf(x);
  const indices = constant(Uint32Array.from(chosenRows(rows)));
  return gatherRows(reshape(x, [rows, columns]), { indices, positions: constant(new Uint32Array(rows)) });
};

/** Fails unless the sampled rows are as expected, within rounding. */
export const assertSample = (name: string, got: Float32Array, { result, expected }: Answer): void => {
  const { rows, columns } = rowsOf(result);
  const want = chosenRows(rows).flatMap((row) =>
    Array.from({ length: columns }, (_, column) => expected(row * columns + column))
  );
  assertClose(got, want, { rtol: 1e-4, what: name });
};
