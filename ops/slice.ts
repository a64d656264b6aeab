/**
 * Slices and transpositions of tensors. They are read by strides: inside a fused kernel they cost nothing. Only orders of
 * four axes and more that three strides do not express are copied, see rearrange.ts.
 */
import { type Access, fitsFusedKernel, joined, stridesOf } from "./graph/layout.ts";
import { requireWhole, type Shape, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";
import { rearrange } from "./rearrange.ts";

interface Slice {
  readonly axis: number;
  readonly start: number;
  readonly size: number;
}

/** `size` entries of x along `axis`, from `start` on. Throws ShapeError where x has fewer. */
export const slice = (x: Tensor, axis: number, start: number, size: number): Tensor =>
  start === 0 && size === x.shape[axis] ? x : sliceOp([x], { axis, start, size });

const sliceOp = defineOp<Slice>("slice", {
  shape: ([x], { axis, start, size }) => {
    requireWhole("slice", { axis, start, size }, 0, x.shape);
    return axis < x.shape.length && start + size <= x.shape[axis]
      ? x.shape.map((n, i) => (i === axis ? size : n))
      : shapeError("slice", `axis ${axis} to reach ${start + size}`, x.shape);
  },
  expression: ([x]) => x,
  access: (shape, { axis, start, size }) => {
    const strides = stridesOf(shape);
    const axes = shape.map((n, i) => ({ size: i === axis ? size : n, stride: strides[i] }));
    return { layout: joined(axes.reverse()), offset: start * strides[axis] };
  },
  backward: (
    { inputs: [x], gradient, attributes: { axis, start } },
  ) => [embed([gradient], { axis, start, size: x.shape[axis] })],
});

/** The reverse of `slice`: x padded with zeros to `size` entries along `axis`, from `start` on. */
const embed = defineOp<Slice>("embed", {
  shape: ([x], { axis, size }) => x.shape.map((n, i) => (i === axis ? size : n)),
  kernels: ({ inputs: [x], output, attributes: { axis, start, size } }) => {
    const inner = sizeOf(x.shape.slice(axis + 1));
    return [kernel({
      label: "embed",
      reads: { x },
      writes: { y: output },
      sizes: { inner, size, start, part: x.shape[axis] },
      threads: sizeOf(output.shape),
      main: /* wgsl */ `
  let at = id / p.inner % p.size - p.start; // wraps round to a large number before the part
  let origin = (id / p.inner / p.size * p.part + at) * p.inner + id % p.inner;
  if (at < p.part) { y[id] = x[origin]; } else { y[id] = 0.0; }`,
    })];
  },
  backward: (
    { inputs: [x], gradient, attributes: { axis, start } },
  ) => [slice(gradient, axis, start, x.shape[axis])],
});

/** Permutes axes: axis i of the result is axis `order[i]` of x. Throws ShapeError unless `order` names each axis of x once. */
export const transpose = (x: Tensor, order: readonly number[]): Tensor => {
  const shape = transposedShape(x.shape, order);
  const { layout } = transposedAccess(x.shape, order);
  return fitsFusedKernel([layout], sizeOf(shape))
    ? transposeOp([x], { order })
    : rearrange(x, { shape, layout, reverse: (gradient) => transpose(gradient, inverse(order)) });
};

const transposedShape = (shape: Shape, order: readonly number[]): Shape =>
  order.length === shape.length && shape.every((_, axis) => order.includes(axis))
    ? order.map((axis) => shape[axis])
    : shapeError("transpose", `each of its axes once in the order [${order.join(", ")}]`, shape);

const transposedAccess = (shape: Shape, order: readonly number[]): Access => {
  const strides = stridesOf(shape);
  return {
    layout: joined(order.map((axis) => ({ size: shape[axis], stride: strides[axis] })).reverse()),
    offset: 0,
  };
};

const inverse = (order: readonly number[]): readonly number[] => order.map((_, i) => order.indexOf(i));

const transposeOp = defineOp<{ order: readonly number[] }>("transpose", {
  shape: ([x], { order }) => transposedShape(x.shape, order),
  expression: ([x]) => x,
  access: (shape, { order }) => transposedAccess(shape, order),
  backward: ({ gradient, attributes: { order } }) => [transpose(gradient, inverse(order))],
});
