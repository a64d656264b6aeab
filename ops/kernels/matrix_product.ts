/** Matrix products as GEMMs: plain, over packed panels, and transposed. */
import type { Operand } from "../graph/kernel.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import type { GemmSpec } from "./gemm_spec.ts";
import { PANEL_ROWS } from "./packing.ts";
import { splitKFor } from "./partial_sums.ts";
import { vectors } from "./wgsl.ts";

/** a [batch, M, K] times b [batch, K, N] to y [batch, M, N]. */
export const matrixProduct = (a: Operand, b: Operand, y: Operand, count?: Operand): GemmSpec => {
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
    prologue: "let b_at = group.z * p.K * p.N;",
    rowPrologue: (i) => `let a${i}_at = (group.z * p.M + row${i}) * p.K;`,
    mainLoop: (_, step, body) => `for (var k = 0u; k < p.K; k += ${step}u) { ${body("k", "p.K")} }`,
    loadA: (i, k) => `a[a${i}_at + ${k}]`,
    loadB: (k, column) => `b[b_at + ${k} * p.N + ${column}]`,
    epilogue: (row, put) => `
    let y_at = (group.z * p.M + ${row}) * p.N;
    ${put((column, value) => `y[y_at + ${column}] = ${value};`)}`,
  };
};

/** a, in panels, times b [batch, K, N] to y [batch, M, N], M a multiple of 4. */
export const productOfPanels = (a: Operand, b: Operand, y: Operand, count?: Operand): GemmSpec => {
  const [batch, M] = y.shape;
  const [, panels, K] = a.shape;
  const { reads, sizes, ...product } = matrixProduct({ ...a, shape: [batch, M, K] }, b, y, count);
  return {
    ...product,
    label: `${product.label}OfPanels`,
    reads: { ...reads, a: vectors(a) },
    sizes: { ...sizes, panels },
    rowsAtOnce: 4,
    rowPrologue: (i) =>
      `let a${i}_at = (group.z * p.panels + row${i} / ${PANEL_ROWS}u) * p.K * ${
        PANEL_ROWS / 4
      }u + row${i} % ${PANEL_ROWS}u / 4u;`,
    loadA: (i, k) => `a[a${i}_at + ${k} * ${PANEL_ROWS / 4}u]`,
  };
};

/** In how many parts the rows of aᵀ·b are summed. */
export const transposedParts = ({ shape: [batch, R, M] }: Operand, b: Operand, { cpu }: AdapterTraits) =>
  splitKFor(R, batch * M * b.shape[2] / 64, cpu);

/** The transposed a [batch, R, M] with b [batch, R, N] to y [batch, parts, M, N]: each part is the sum of some rows. */
export const transposedProduct = (
  a: Operand,
  b: Operand,
  y: Operand,
  parts: number,
  count?: Operand,
): GemmSpec => {
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
    prologue: `
  let first = group.z % p.parts * p.each;
  let last = min(first + p.each, ${count === undefined ? "p.R" : "min(p.R, count[0])"});
  let source = group.z / p.parts * p.R;`,
    mainLoop: (_, step, body) => `for (var r = first; r < last; r += ${step}u) { ${body("r", "last")} }`,
    loadA: (i, r) => `a[((source + ${r}) * p.M + row${i})${rowsAtOnce === 4 ? " / 4u" : ""}]`,
    loadB: (r, column) => `b[(source + ${r}) * p.N + ${column}]`,
    epilogue: (row, put) => `
    let y_at = (group.z * p.M + ${row}) * p.N;
    ${put((column, value) => `y[y_at + ${column}] = ${value};`)}`,
  };
};
