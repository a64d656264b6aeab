/** Matrix products as GEMMs: plain, over packed panels, and transposed. */
import type { Operand } from "../graph/kernel.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import type { GemmSpec } from "./gemm_spec.ts";
import { PANEL_ROWS } from "./packing.ts";
import { splitKFor } from "./partial_sums.ts";
import { vectors } from "./wgsl.ts";

/** y [batch, M, N] = a [batch, M, K] · b [batch, K, N], of which only the first `count` rows ([1], u32), if given. */
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

/** The same product with a in packed panels; M is a multiple of 4. */
export const packedProduct = (a: Operand, b: Operand, y: Operand, count?: Operand): GemmSpec => {
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

/** Splits of k, the rows of a [batch, R, M] and b [batch, R, N], for aᵀ·b. */
export const transposedSplits = (
  { shape: [batch, R, M] }: Operand,
  b: Operand,
  { cpu }: AdapterTraits,
): number => splitKFor(R, batch * M * b.shape[2] / 64, cpu);

/**
 * Split-K of aᵀ·b for a [batch, R, M] and b [batch, R, N]: y [batch, splits, M, N] are partial sums, over R / splits
 * rows each. With `count` ([1], u32) only the first `count` rows exist.
 */
export const transposedProduct = (
  a: Operand,
  b: Operand,
  y: Operand,
  splits: number,
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
    sizes: { R, parts: splits, each: Math.ceil(R / splits) },
    batch: batch * splits,
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
