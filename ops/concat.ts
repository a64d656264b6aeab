/** Concatenation along the last axis. */
import { type Shape, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { kernel, vectors } from "./kernels/wgsl.ts";
import { slice } from "./slice.ts";

/** Tensors [..., Cᵢ] side by side, [..., ΣCᵢ]. Throws ShapeError where their other sizes differ. */
export const concat = (parts: readonly Tensor[]): Tensor => concatOp(parts);

const concatOp = defineOp("concat", {
  shape: (parts) => {
    const rows = parts.map(({ shape }) => shape.slice(0, -1).join());
    return parts.length > 0 && parts.every(({ shape }, i) => shape.length > 0 && rows[i] === rows[0])
      ? [...parts[0].shape.slice(0, -1), totalOf(parts)]
      : shapeError(
        "concat",
        "tensors whose sizes but the last are equal",
        ...parts.map(({ shape }) => shape),
      );
  },
  slices: (parts) =>
    sizeOf(parts[0].shape.slice(0, -1)) === 1 ? null : { along: [...parts.keys()], output: "rows" },
  kernels: ({ inputs, output }) => {
    const whole = columnsOf(output);
    return inputs.map((x, i) => {
      const columns = columnsOf(x);
      const start = totalOf(inputs.slice(0, i));
      const vector = [columns, start, whole].every((size) => size % 4 === 0) ? 4 : 1;
      const bind = vector === 4 ? vectors : (operand: typeof x) => operand;
      return kernel({
        label: "concat",
        reads: { x: bind(x) },
        writes: { y: bind(output) },
        sizes: { columns: columns / vector, start: start / vector, whole: whole / vector },
        threads: sizeOf(x.shape) / vector,
        main: "y[id / p.columns * p.whole + p.start + id % p.columns] = x[id];",
      });
    });
  },
  backward: ({ inputs, gradient }) =>
    inputs.map((x, i) =>
      slice(gradient, x.shape.length - 1, totalOf(inputs.slice(0, i)), x.shape[x.shape.length - 1])
    ),
});

const columnsOf = ({ shape }: { readonly shape: Shape }): number => shape[shape.length - 1];
const totalOf = (parts: readonly { readonly shape: Shape }[]): number =>
  parts.reduce((total, part) => total + columnsOf(part), 0);
