import assert from "node:assert/strict";
import { gpuTest } from "./_test_kit.ts";
import { add, broadcastTo, maximum, relu } from "./arithmetic.ts";
import { averagePool } from "./average_pool.ts";
import { compactRows } from "./compact_rows.ts";
import { concat } from "./concat.ts";
import { conv2d } from "./conv2d.ts";
import { enlargedCrossEntropy } from "./enlarged_cross_entropy.ts";
import { gatherIndices } from "./gather_rows.ts";
import { ShapeError } from "./graph/shape.ts";
import { constant, input, reshape, type Tensor } from "./graph/tensor.ts";
import { matmul, matmulTransposed } from "./matmul.ts";
import { maxPool } from "./max_pool.ts";
import { columnSums, mean, rowSums } from "./reduce.ts";
import { evaluate } from "./runtime/program.ts";
import { resizeBilinear } from "./resize_bilinear.ts";
import { slice, transpose } from "./slice.ts";
import { softmax } from "./softmax.ts";
import { toFloat } from "./to_float.ts";

Deno.test("attributes and element types that mean nothing are refused while the graph is built", () => {
  const zeros = (...shape: number[]) => constant(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
  const [x, w, u] = [zeros(1, 6, 6, 4), zeros(3, 3, 4, 4), constant(Uint32Array.of(1, 2), [2])];
  const mistakes: readonly (() => Tensor)[] = [
    ...[[-2, 2], [0.5, 1], [4, 2], [1, -1], [1, 0], [NaN, 1]].map(([start, size]) => () =>
      slice(zeros(5), 0, start, size)
    ),
    ...[-1, 0.5, 1].map((axis) => () => slice(zeros(5), axis, 1, 1)),
    ...[[0, 0], [-1, 0], [0], [0, 2], [0.5, 1]].map((order) => () => transpose(zeros(2, 3), order)),
    ...[[-2, -3], [1.5, 4], [7], [NaN]].map((shape) => () => reshape(zeros(6), shape)),
    () => input("x", [2, -1]),
    () => input("x", [1.5]),
    ...[[1], [2], [3, 1], [0], [1.5]].map((shape) => () => broadcastTo(zeros(3), shape)),
    ...[
      { stride: 0 },
      { stride: 1.5 },
      { stride: -1 },
      { dilation: 0 },
      { dilation: -1 },
      { pad: -1 },
      { pad: 0.5 },
      { groups: 0 },
      { groups: 3 },
    ].flatMap((options) => [() => conv2d(x, w, options), () => conv2d(x, zeros(1, 1, 4, 4), options)]),
    () => conv2d(zeros(6, 6, 4), w),
    () => conv2d(x, zeros(4, 4)),
    ...[{ stride: 0 }, { stride: 0.5 }, { size: 0 }, { size: 1.5 }, { pad: -1 }, { pad: 2 }].map(
      (options) => () => maxPool(x, { size: 2, stride: 1, pad: 0, ...options }),
    ),
    ...[[0, 1], [1, 0], [2, -1], [1.5, 1]].map(([size, stride]) => () => averagePool(x, { size, stride })),
    ...[[0, 4], [4, 1.5], [-1, 4], [2 ** 16, 2 ** 28]].map(([height, width]) => () =>
      resizeBilinear(x, { height, width, alignCorners: true })
    ),
    () => resizeBilinear(zeros(6, 6, 4), { height: 2, width: 2, alignCorners: false }),
    () => concat([]),
    () => concat([zeros(2, 3), zeros(3, 3)]),
    ...[zeros(1, 8, 8), constant(new Uint32Array(64), [8, 8]), constant(new Uint32Array(128), [2, 8, 8])].map(
      (labels) => () => enlargedCrossEntropy(x, labels, { alignCorners: false }).loss,
    ),
    () => matmul(zeros(2, 3), zeros(3)),
    () => matmul(zeros(), zeros(3, 3)),
    () => matmulTransposed(zeros(3), zeros(3)),
    () => softmax(zeros(3), 0),
    () => softmax(zeros(3), NaN),
    () => compactRows(zeros(3), 0).indices,
    () => compactRows(zeros(3), 1.5).indices,
    () => gatherIndices(u, u, -1),
    () => rowSums([]),
    () => columnSums([u]),
    () => columnSums([zeros(1, 2, 2), u, u]),
    // Element types
    () => add(u, u),
    () => relu(u),
    () => mean(u),
    () => rowSums([u]),
    () => slice(u, 0, 1, 1),
    () => transpose(u, [0]),
    () => broadcastTo(u, [2, 2]),
    () => matmul(reshape(u, [1, 2]), zeros(2, 2)),
    () => toFloat(zeros(2)),
    () => compactRows(u, 1).indices,
    () => conv2d(x, constant(new Uint32Array(16), [1, 1, 4, 4])),
  ];
  for (const mistake of mistakes) assert.throws(mistake, ShapeError, String(mistake));
});

gpuTest("NaN goes through relu, maximum and max pooling", function* () {
  assert.deepEqual([...yield* evaluate(relu(constant([NaN, -1, 2, -Infinity])))], [NaN, 0, 2, 0]);
  assert.deepEqual([...yield* evaluate(maximum(constant([NaN, -1, 2]), 0))], [NaN, 0, 2]);
  for (const C of [1, 4]) {
    for (const at of [0, 1, 2, 3]) {
      const data = Float32Array.from({ length: 8 * C }, (_, i) => i);
      for (let c = 0; c < C; c++) data[at * C + c] = NaN;
      const pooled = maxPool(constant(data, [1, 2, 4, C]), { size: 2, stride: 2, pad: 0 });
      const inFirst = at < 2,
        [first, second] = yield* evaluate(reshape(transpose(pooled, [0, 3, 1, 2]), [C, 2]));
      assert.deepEqual([Number.isNaN(first), Number.isNaN(second)], [inFirst, !inFirst]);
    }
  }
});
