/** Matrix products, batched, with the transposition that gradients need; optionally of the first rows only. */
import { inPanels, PANEL, panelsOf, variantsOn } from "./_panels.ts";
import { partsFor, type Product, tiled, tileVariants } from "./_product.ts";
import { type Operand, vectors } from "./kernel.ts";
import { addUp } from "./fuse.ts";
import {
  type AdapterTraits,
  defineOp,
  type Op,
  reshape,
  type Shape,
  shapeError,
  sizeOf,
  type Tensor,
} from "./tensor.ts";
import { transpose } from "./slice.ts";

/**
 * a [..., M, K] times b [K, N] or [..., K, N]: [..., M, N]. With one b for many a the leading axes of a count as rows.
 *
 * With `count` ([1], u32; a and b are matrices then) only the first `count` rows of a are used: the others of the
 * result are left undefined, and the kernel is dispatched for no more rows than there are.
 */
export const matmul = (a: Tensor, b: Tensor, count?: Tensor): Tensor => {
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
 * aᵀ·b over rows: a [..., R, M], b [..., R, N] to [..., M, N]. With `count` only the first `count` of the R rows.
 */
export const matmulTransposed = (a: Tensor, b: Tensor, count?: Tensor): Tensor => {
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

const matmulOp: Op = defineOp("matmul", {
  shape: ([a, b]) => [a.shape[0], a.shape[1], b.shape[2]],
  precision: "half",
  flops: ([a, b]) => 2 * sizeOf(a.shape) * b.shape[2],
  slices: ([a, , count]) =>
    count !== undefined ? null : { along: a.shape[0] === 1 ? [0] : [0, 1], output: "rows" },
  kernels: ({ inputs: [a, b, count], output, adapter, scratch, moments, choose }) => {
    const [batch, M, K] = a.shape;
    const product = matrixProduct(a, b, output, count);
    const plain = tileVariants(product, adapter, (tile) => tiled(product, tile, scratch, moments));
    const shape = panelsOf(batch, M, K);
    if (!adapter.software || M % 4 !== 0 || 4 * sizeOf(shape) > adapter.maxBinding) return choose(plain);
    // A CPU loads four rows at once where they lie side by side, which pays if there are enough columns to use them for.
    const aside = tileVariants(productOfPanels({ ...a, shape }, b, output, count), adapter, (tile) => {
      const panels = scratch(shape, a.dtype);
      return [
        inPanels(a, panels),
        ...tiled(productOfPanels(panels, b, output, count), tile, scratch, moments),
      ];
    });
    const first = variantsOn("panels", aside);
    return choose(b.shape[2] >= ENOUGH_COLUMNS ? { ...first, ...plain } : { ...plain, ...first });
  },
  backward: ({ inputs: [a, b, count], gradient }) => [
    matmulOp([gradient, transpose(b, [0, 2, 1]), ...(count === undefined ? [] : [count])]),
    transposedOp([a, gradient, ...(count === undefined ? [] : [count])]),
    null,
  ],
});

const ENOUGH_COLUMNS = 96;

/** a [batch, M, K] times b [batch, K, N] to y [batch, M, N]. */
export const matrixProduct = (a: Operand, b: Operand, y: Operand, count?: Operand): Product => {
  const [batch, M, K] = a.shape;
  const N = b.shape[2];
  const width = N % 4 === 0 ? 4 : 1;
  return {
    label: `matmul${width}`,
    reads: { a, b: width === 4 ? vectors(b) : b },
    writes: { y: width === 4 ? vectors(y) : y },
    sizes: { K },
    batch,
    rows: M,
    columns: N / width,
    width,
    count,
    before: "let b_at = group.z * p.K * p.N;",
    row: (i) => `let a${i}_at = (group.z * p.M + row${i}) * p.K;`,
    loops: (_, step, body) => `for (var k = 0u; k < p.K; k += ${step}u) { ${body("k", "p.K")} }`,
    a: (i, k) => `a[a${i}_at + ${k}]`,
    b: (k, column) => `b[b_at + ${k} * p.N + ${column}]`,
    store: (row, put) => `
    let y_at = (group.z * p.M + ${row}) * p.N;
    ${put((column, value) => `y[y_at + ${column}] = ${value};`)}`,
  };
};

/** a, in panels, times b [batch, K, N] to y [batch, M, N], M a multiple of 4. */
export const productOfPanels = (a: Operand, b: Operand, y: Operand, count?: Operand): Product => {
  const [batch, M] = y.shape;
  const [, panels, K] = a.shape;
  const { reads, sizes, ...product } = matrixProduct({ ...a, shape: [batch, M, K] }, b, y, count);
  return {
    ...product,
    label: `${product.label}OfPanels`,
    reads: { ...reads, a: vectors(a) },
    sizes: { ...sizes, panels },
    rowsAtOnce: 4,
    row: (i) =>
      `let a${i}_at = (group.z * p.panels + row${i} / ${PANEL}u) * p.K * ${
        PANEL / 4
      }u + row${i} % ${PANEL}u / 4u;`,
    a: (i, k) => `a[a${i}_at + ${k} * ${PANEL / 4}u]`,
  };
};

const transposedOp: Op = defineOp("matmulTransposed", {
  precision: "full",
  flops: ([a, b]) => 2 * sizeOf(a.shape) * b.shape[2],
  slices: ([a, , count]) =>
    count !== undefined ? null : { along: [0, 1], output: a.shape[0] === 1 ? "sum" : "rows" },
  shape: ([a, b]): Shape => [a.shape[0], a.shape[2], b.shape[2]],
  kernels: ({ inputs: [a, b, count], output, adapter, scratch, choose }) => {
    const parts = transposedParts(a, b, adapter);
    return choose(
      tileVariants(transposedProduct(a, b, output, parts, count), adapter, (tile) => {
        if (parts === 1) return tiled(transposedProduct(a, b, output, 1, count), tile, scratch);
        const [batch, M, N] = output.shape;
        const partial = scratch([batch, parts, M * N]);
        return [
          ...tiled(transposedProduct(a, b, partial, parts, count), tile, scratch),
          ...addUp(partial, output, batch, parts, M * N, scratch),
        ];
      }),
    );
  },
  backward: ({ inputs: [a, b, count], gradient }) => {
    const rest = count === undefined ? [] : [count];
    return [matmulOp([b, transpose(gradient, [0, 2, 1]), ...rest]), matmulOp([a, gradient, ...rest]), null];
  },
});

/** In how many parts the rows of aᵀ·b are summed. */
const transposedParts = ({ shape: [batch, R, M] }: Operand, b: Operand, { software }: AdapterTraits) =>
  partsFor(R, batch * M * b.shape[2] / 64, software);

/** The transposed a [batch, R, M] with b [batch, R, N] to y [batch, parts, M, N]: each part is the sum of some rows. */
export const transposedProduct = (
  a: Operand,
  b: Operand,
  y: Operand,
  parts: number,
  count?: Operand,
): Product => {
  const [batch, R, M] = a.shape;
  const N = b.shape[2];
  const width = N % 4 === 0 ? 4 : 1;
  const rowsAtOnce = M % 4 === 0 ? 4 : 1;
  return {
    label: `matmulTransposed${rowsAtOnce}${width}`,
    reads: {
      a: rowsAtOnce === 4 ? vectors(a) : a,
      b: width === 4 ? vectors(b) : b,
      ...(count === undefined ? {} : { count }),
    },
    writes: { y: width === 4 ? vectors(y) : y },
    sizes: { R, parts, each: Math.ceil(R / parts) },
    batch: batch * parts,
    rows: M,
    columns: N / width,
    width,
    rowsAtOnce,
    before: `
  let first = group.z % p.parts * p.each;
  let last = min(first + p.each, ${count === undefined ? "p.R" : "min(p.R, count[0])"});
  let source = group.z / p.parts * p.R;`,
    loops: (_, step, body) => `for (var r = first; r < last; r += ${step}u) { ${body("r", "last")} }`,
    a: (i, r) => `a[((source + ${r}) * p.M + row${i})${rowsAtOnce === 4 ? " / 4u" : ""}]`,
    b: (r, column) => `b[(source + ${r}) * p.N + ${column}]`,
    store: (row, put) => `
    let y_at = (group.z * p.M + ${row}) * p.N;
    ${put((column, value) => `y[y_at + ${column}] = ${value};`)}`,
  };
};
