/** Matrix products, batched, plain and transposed as gradients need it; optionally of the first rows only. */
import { type Shape, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, type Op, reshape, type Tensor } from "./graph/tensor.ts";
import { gemmKernels } from "./kernels/gemm.ts";
import { tileVariants } from "./kernels/gemm_tiles.ts";
import {
  matrixProduct,
  packedProduct,
  transposedProduct,
  transposedSplits,
} from "./kernels/matrix_product.ts";
import { packedShape, packRows, variantsOn } from "./kernels/packing.ts";
import { sumPartials } from "./kernels/partial_sums.ts";
import { transpose } from "./slice.ts";

/**
 * a [..., M, K] times b [K, N] or [..., K, N]: [..., M, N]. With one b for many a the leading axes of a count as rows.
 *
 * With `count` ([1], u32; a and b are matrices then) only the first `count` rows of a are used: the other rows of the
 * result are undefined, and no more workgroups are dispatched than the rows need. Throws ShapeError where sizes do not
 * fit.
 */
export const matmul = (a: Tensor, b: Tensor, count?: Tensor): Tensor => {
  if (a.shape.length < 1 || b.shape.length < 2) {
    shapeError("matmul", "a [..., M, K] and b [..., K, N]", a.shape, b.shape);
  }
  const [K, N] = b.shape.slice(-2);
  const leading = a.shape.slice(0, -1);
  if (a.shape[a.shape.length - 1] !== K) {
    shapeError("matmul", "a [..., M, K] and b [..., K, N]", a.shape, b.shape);
  }
  const batched = b.shape.length > 2;
  if (batched && leading.slice(0, -1).join() !== b.shape.slice(0, -2).join()) {
    shapeError("matmul", "equal leading axes", a.shape, b.shape);
  }
  const rows = leading.reduce((x, y) => x * y, 1);
  const batch = batched ? b.shape.slice(0, -2).reduce((x, y) => x * y, 1) : 1;
  const product = matmulOp([
    reshape(a, [batch, rows / batch, K]),
    reshape(b, [batch, K, N]),
    ...(count === undefined ? [] : [count]),
  ]);
  return reshape(product, [...leading, N]);
};

/**
 * aᵀ·b: a [..., R, M], b [..., R, N] to [..., M, N]. With `count` ([1], u32) over the first `count` of the R rows.
 * Throws ShapeError where sizes do not fit.
 */
export const matmulTransposed = (a: Tensor, b: Tensor, count?: Tensor): Tensor => {
  if (a.shape.length < 2 || b.shape.length < 2) {
    shapeError("matmulTransposed", "a [..., R, M] and b [..., R, N]", a.shape, b.shape);
  }
  const [R, M] = a.shape.slice(-2);
  const N = b.shape[b.shape.length - 1];
  const leading = a.shape.slice(0, -2);
  if (b.shape[b.shape.length - 2] !== R || b.shape.slice(0, -2).join() !== leading.join()) {
    shapeError("matmulTransposed", "a [..., R, M] and b [..., R, N]", a.shape, b.shape);
  }
  const batch = leading.reduce((x, y) => x * y, 1);
  const inputs = [reshape(a, [batch, R, M]), reshape(b, [batch, R, N])];
  return reshape(transposedOp(count === undefined ? inputs : [...inputs, count]), [...leading, M, N]);
};

/** Throws ShapeError unless a count of rows, where there is one, is one number and `a` one matrix. */
const requireCount = (op: string, a: Tensor, count: Tensor | undefined) => {
  if (count !== undefined && (sizeOf(count.shape) !== 1 || a.shape[0] !== 1)) {
    shapeError(op, "matrices with a count of rows [1]", a.shape, count.shape);
  }
};

const matmulOp: Op = defineOp("matmul", {
  takes: ["f32", "f32", "u32"],
  shape: ([a, b, count]) => {
    requireCount("matmul", a, count);
    return [a.shape[0], a.shape[1], b.shape[2]];
  },
  precision: "half",
  flops: ([a, b]) => 2 * sizeOf(a.shape) * b.shape[2],
  slices: ([a, , count]) =>
    count !== undefined ? null : { along: a.shape[0] === 1 ? [0] : [0, 1], output: "rows" },
  kernels: ({ inputs: [a, b, count], output, adapter, scratch, statistics, choose }) => {
    const [batch, M, K] = a.shape;
    const product = matrixProduct(a, b, output, count);
    const plain = tileVariants(product, adapter, (tile) => gemmKernels(product, tile, scratch, statistics));
    const shape = packedShape(batch, M, K);
    if (!adapter.cpu || M % 4 !== 0 || 4 * sizeOf(shape) > adapter.maxBinding) return choose(plain);
    // From packed panels a CPU loads four rows at once, which pays where there are enough columns to use them for.
    const packed = tileVariants(packedProduct({ ...a, shape }, b, output, count), adapter, (tile) => {
      const panels = scratch(shape, a.dtype);
      return [
        packRows(a, panels),
        ...gemmKernels(packedProduct(panels, b, output, count), tile, scratch, statistics),
      ];
    });
    const byPacking = variantsOn("panels", packed);
    return choose(b.shape[2] >= ENOUGH_COLUMNS ? { ...byPacking, ...plain } : { ...plain, ...byPacking });
  },
  backward: ({ inputs: [a, b, count], gradient }) => [
    matmulOp([gradient, transpose(b, [0, 2, 1]), ...(count === undefined ? [] : [count])]),
    transposedOp([a, gradient, ...(count === undefined ? [] : [count])]),
    null,
  ],
});

/** Columns of b from which on packing a takes less time than it saves (lavapipe 25.0, two cores, November 2026). */
const ENOUGH_COLUMNS = 96;

const transposedOp: Op = defineOp("matmulTransposed", {
  takes: ["f32", "f32", "u32"],
  precision: "full",
  flops: ([a, b]) => 2 * sizeOf(a.shape) * b.shape[2],
  slices: ([a, , count]) =>
    count !== undefined ? null : { along: [0, 1], output: a.shape[0] === 1 ? "sum" : "rows" },
  shape: ([a, b, count]): Shape => {
    requireCount("matmulTransposed", a, count);
    return [a.shape[0], a.shape[2], b.shape[2]];
  },
  kernels: ({ inputs: [a, b, count], output, adapter, scratch, choose }) => {
    const splits = transposedSplits(a, b, adapter);
    return choose(
      tileVariants(transposedProduct(a, b, output, splits, count), adapter, (tile) => {
        if (splits === 1) return gemmKernels(transposedProduct(a, b, output, 1, count), tile, scratch);
        const [batch, M, N] = output.shape;
        const partials = scratch([batch, splits, M * N]);
        return [
          ...gemmKernels(transposedProduct(a, b, partials, splits, count), tile, scratch),
          ...sumPartials(partials, output, batch, splits, M * N, scratch),
        ];
      }),
    );
  },
  backward: ({ inputs: [a, b, count], gradient }) => {
    const rest = count === undefined ? [] : [count];
    return [matmulOp([b, transpose(gradient, [0, 2, 1]), ...rest]), matmulOp([a, gradient, ...rest]), null];
  },
});
