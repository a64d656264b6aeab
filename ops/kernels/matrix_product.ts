/** Matrix products as GEMMs: plain, over packed panels, and transposed. */
import type { Operand } from "../graph/kernel.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import type { Product } from "./gemm_spec.ts";
import { PANEL } from "./packing.ts";
import { partsFor } from "./partial_sums.ts";
import { vectors } from "./wgsl.ts";

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

/** In how many parts the rows of aᵀ·b are summed. */
export const transposedParts = ({ shape: [batch, R, M] }: Operand, b: Operand, { software }: AdapterTraits) =>
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
