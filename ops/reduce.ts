/**
 * Sums. Inputs may be chains of elementwise ops: the compiler fuses them into the reduction, and they are never stored.
 */
import { broadcastTo, div, mul, sub } from "./arithmetic.ts";
import { sameShape, type Shape, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, reshape, type Tensor } from "./graph/tensor.ts";
import { slice } from "./slice.ts";

/**
 * Sums over the rows of each group: terms, each [G, R, C], to [G, terms, C]. With `count` ([1], u32; G = 1) over the
 * first `count` rows. Throws ShapeError where the terms differ in shape.
 */
export const columnSums = (terms: readonly Tensor[], count?: Tensor): Tensor =>
  columnSumsOp(count === undefined ? terms : [...terms, count], {});

/**
 * Shifted sums of x [G, R, C]: the sums of the differences to the first row of each group, and of their squares, [G, 2,
 * C]. With `count` ([1], u32; G = 1) over the first `count` rows.
 */
export const shiftedSums = (x: Tensor, count?: Tensor): Tensor => {
  const difference = sub(x, slice(x, 1, 0, 1));
  const terms = [difference, mul(difference, difference)];
  return count === undefined ? columnSumsOp(terms, { shiftedSumsOf: x }) : columnSums(terms, count);
};

const columnSumsOp = defineOp<{ readonly shiftedSumsOf?: Tensor }>("columnSums", {
  takes: "any",
  shape: (inputs) => {
    const terms = inputs.filter((x) => x.dtype === "f32");
    const [first] = terms;
    const counts = inputs.length - terms.length;
    if (terms.length === 0 || counts > 1 || (counts === 1 && inputs.at(-1)!.dtype !== "u32")) {
      return shapeError(
        "columnSums",
        "terms as f32, and as u32 at most a count of rows after them",
        ...inputs.map((x) => x.shape),
      );
    }
    if (first.shape.length !== 3 || terms.some((x) => !sameShape(x.shape, first.shape))) {
      return shapeError("columnSums", "terms of one shape [G, R, C]", ...terms.map((x) => x.shape));
    }
    return [first.shape[0], terms.length, first.shape[2]];
  },
  reduction: "columns",
  shiftedSumsOf: ({ shiftedSumsOf }) => shiftedSumsOf ?? null,
  backward: ({ inputs, gradient }) =>
    inputs.map((x, term) => x.dtype === "f32" ? broadcastTo(slice(gradient, 1, term, 1), x.shape) : null),
});

/** Sums over the last axis: terms, each [..., C], to [..., terms]. */
export const rowSums = (terms: readonly Tensor[]): Tensor => rowSumsOp(terms);

const rowSumsOp = defineOp("rowSums", {
  shape: (terms) =>
    terms.length > 0 && terms[0].shape.length > 0 && terms.every((x) => sameShape(x.shape, terms[0].shape))
      ? [...terms[0].shape.slice(0, -1), terms.length]
      : shapeError("rowSums", "terms of one shape [..., C]", ...terms.map((x) => x.shape)),
  reduction: "rows",
  backward: ({ inputs, gradient }) =>
    inputs.map((x, term) => broadcastTo(slice(gradient, x.shape.length - 1, term, 1), x.shape)),
});

/** Sums of all elements: terms of one shape to [terms]. */
export const totals = (terms: readonly Tensor[]): Tensor => {
  const size = sizeOf(terms[0].shape);
  const columns = [64, 32, 16, 8, 4].find((c) => size % c === 0) ?? 1;
  const partial = columnSums(terms.map((x) => reshape(x, [1, size / columns, columns])));
  return reshape(columns === 1 ? partial : rowSums([partial]), [terms.length]);
};

/** Sum of all elements, a scalar []. */
export const sum = (x: Tensor): Tensor => reshape(totals([x]), []);

/** Mean of all elements, a scalar []. */
export const mean = (x: Tensor): Tensor => div(sum(x), sizeOf(x.shape));

/** Sums x over the axes along which `shape` is broadcast to the shape of x: the gradient of broadcasting. */
export const sumTo = (x: Tensor, shape: Shape): Tensor => {
  if (sizeOf(shape) === 1) return reshape(sum(x), shape);
  const target = [...new Array(x.shape.length - shape.length).fill(1), ...shape];
  let current = x;
  for (let axis = x.shape.length - 1; axis >= 0; axis--) {
    if (target[axis] === current.shape[axis]) continue;
    // Neighbouring axes that vanish together are summed by one reduction.
    let first = axis;
    while (first > 0 && target[first - 1] === 1 && current.shape[first - 1] !== 1) first -= 1;
    const before = sizeOf(current.shape.slice(0, first));
    const summed = sizeOf(current.shape.slice(first, axis + 1));
    const after = sizeOf(current.shape.slice(axis + 1));
    const reduced = after === 1
      ? rowSums([reshape(current, [before, summed])])
      : columnSums([reshape(current, [before, summed, after])]);
    const kept = current.shape.map((size, i) => (i >= first && i <= axis ? 1 : size));
    current = reshape(reduced, kept);
    axis = first;
  }
  return reshape(current, shape);
};
