/**
 * Packed panels, as in BLIS: blocks of 16 rows, interleaved so that one vec4 load brings four rows of a column. A GEMM
 * then loads several rows at once, and reads memory in order.
 */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { Variants } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { kernel, lines, vectors } from "./wgsl.ts";

/** Rows of a panel: as many as the tallest tile of a CPU has. */
export const PANEL_ROWS = 16;

/** The shape of `batch` matrices of rows × columns as packed panels: [batch, panels, columns, PANEL_ROWS]. */
export const packedShape = (batch: number, rows: number, columns: number): readonly number[] => [
  batch,
  Math.ceil(rows / PANEL_ROWS),
  columns,
  PANEL_ROWS,
];

/** Variants that go by way of `what`, with that in front of their names. */
export const variantsOn = (what: string, variants: Variants): Variants =>
  Object.fromEntries(Object.entries(variants).map(([name, make]) => [`${what}, ${name}`, make]));

/**
 * Transposes x [..., R, C] to y [..., C, R], in blocks of 4×4 where sizes allow. Neighbouring invocations write
 * neighbours.
 */
export const transposeInner = (x: Operand, y: Operand): Kernel =>
  packRowsBy(x.shape[x.shape.length - 2], x, y, "turned");

/** Packs x [batch, R, C] into panels y; R is a multiple of 4. */
export const packRows = (x: Operand, y: Operand): Kernel => packRowsBy(PANEL_ROWS, x, y, "panels");

const packRowsBy = (panel: number, x: Operand, y: Operand, label: string): Kernel => {
  const [R, C] = x.shape.slice(-2);
  const width = R % 4 === 0 && C % 4 === 0 && panel % 4 === 0 ? 4 : 1;
  const bind = width === 4 ? vectors : (operand: Operand) => operand;
  const each = C % (4 * width) === 0 ? 4 : 1; // columns (vectors) per invocation: neighbours share a cache line
  const part = (j: number) => width === 4 ? transposedRow(j) : "r0";
  return kernel({
    label,
    reads: { x: bind(x) },
    writes: { y: bind(y) },
    sizes: {
      R: R / width,
      C: C / width,
      across: C / width / each,
      each,
      panels: Math.ceil(R / panel),
      panel: panel / width,
    },
    threads: sizeOf(x.shape) / width ** 2 / each,
    main: `
  let r = id % p.R;
  let first = id / p.R % p.across * p.each;
  let matrix = id / p.R / p.across;
  let x_at = (matrix * p.R + r) * ${width}u * p.C;
  let y_at = (matrix * p.panels + r / p.panel) * p.C * ${width}u * p.panel + r % p.panel;
  for (var c = first; c < first + p.each; c++) {
  ${lines(width, (j) => `let r${j} = x[x_at + ${j}u * p.C + c];`)}
  ${lines(width, (j) => `y[y_at + (c * ${width}u + ${j}u) * p.panel] = ${part(j)};`)}
  }`,
  });
};

/** WGSL: row j of the 4×4 matrix whose columns are r0 … r3. */
export const transposedRow = (j: number): string => `vec4(r0[${j}], r1[${j}], r2[${j}], r3[${j}])`;
