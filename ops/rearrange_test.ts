import assert from "node:assert/strict";
import { assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { add, broadcastTo, exp, mul, where } from "./arithmetic.ts";
import { stridesOf } from "./graph/layout.ts";
import { type Shape, sizeOf } from "./graph/shape.ts";
import { constant, reshape } from "./graph/tensor.ts";
import { rowSums } from "./reduce.ts";
import { evaluate } from "./runtime/program.ts";
import { slice, transpose } from "./slice.ts";

/** The elements of `data` at all places of `shape`, by the strides along its axes. */
const read = (data: Float32Array, shape: Shape, strides: readonly number[]) =>
  Float32Array.from(
    { length: sizeOf(shape) },
    (_, i) =>
      data[
        stridesOf(shape).reduce(
          (at, step, axis) => at + Math.floor(i / step) % shape[axis] * strides[axis],
          0,
        )
      ],
  );

const repeated = (data: Float32Array, from: Shape, to: Shape) => {
  const whole = [...new Array(to.length - from.length).fill(1), ...from];
  return read(data, to, stridesOf(whole).map((stride, axis) => whole[axis] === 1 ? 0 : stride));
};

const orders = (axes: readonly number[]): number[][] =>
  axes.length < 2
    ? [[...axes]]
    : axes.flatMap((x) => orders(axes.filter((y) => y !== x)).map((rest) => [x, ...rest]));

gpuTest("transpose() takes four and more axes in any order", function* () {
  for (const shape of [[2, 3, 4, 5], [2, 4, 8, 16]]) {
    const data = numbers(sizeOf(shape));
    for (const order of orders([0, 1, 2, 3])) {
      const want = read(data, order.map((axis) => shape[axis]), order.map((axis) => stridesOf(shape)[axis]));
      assert.deepEqual(
        yield* evaluate(transpose(constant(data, shape), order)),
        want,
        `[${shape}] by [${order}]`,
      );
    }
  }
  const shape = [2, 3, 2, 2, 3, 2], data = numbers(sizeOf(shape));
  for (const order of [[5, 4, 3, 2, 1, 0], [0, 3, 1, 4, 2, 5], [4, 0, 5, 1, 2, 3]]) {
    const want = read(data, order.map((axis) => shape[axis]), order.map((axis) => stridesOf(shape)[axis]));
    assert.deepEqual(
      yield* evaluate(transpose(constant(data, shape), order)),
      want,
      `[${shape}] by [${order}]`,
    );
  }
});

gpuTest("elementwise ops broadcast along any axes of many", function* () {
  for (
    const shapes of [
      [[2, 3, 4, 5], [2, 1, 4, 1]],
      [[2, 3, 4, 5], [1, 3, 1, 5]],
      [[2, 3, 1, 4], [1, 3, 5, 1]],
      [[2, 1, 3, 1, 4, 1], [2, 1, 3, 1, 2]],
      [[2, 2, 2, 2, 2, 2, 2], [1, 2, 1, 2, 1, 2, 1]],
    ]
  ) {
    const [a, b] = shapes, [x, y] = shapes.map((shape, i) => numbers(sizeOf(shape), i + 1));
    const shape = a.map((size, axis) => Math.max(size, b[axis - a.length + b.length] ?? 1));
    const [left, right] = [repeated(x, a, shape), repeated(y, b, shape)];
    assert.deepEqual(
      yield* evaluate(add(constant(x, a), constant(y, b))),
      left.map((value, i) => value + right[i]),
      `${a} and ${b}`,
    );
    assert.deepEqual(yield* evaluate(broadcastTo(constant(y, b), shape)), right, `${b} to ${shape}`);
    const chosen = where(constant(right.map((v) => Number(v > 0)), shape), constant(x, a), constant(y, b));
    assert.deepEqual(yield* evaluate(chosen), right.map((v, i) => v > 0 ? left[i] : v));
  }
});

gpuTest("what is copied into another order is fused with what follows, and has gradients", function* () {
  const shape = [2, 3, 2, 4], other = [2, 2, 1, 1];
  yield* assertGradient(
    (x, y) => {
      const heads = exp(mul(transpose(x, [3, 2, 1, 0]), 0.5)); // [4, 2, 3, 2]
      const spread = mul(transpose(heads, [3, 1, 2, 0]), y); // [2, 2, 3, 4]
      return rowSums([reshape(slice(spread, 2, 1, 2), [8, 4])]);
    },
    [{ shape, data: numbers(48) }, { shape: other, data: numbers(4, 2) }],
  );
  yield* assertGradient(
    (x, y) => mul(x, y),
    [{ shape, data: numbers(48) }, { shape: [2, 1, 2, 1], data: numbers(4, 2) }],
  );
});
