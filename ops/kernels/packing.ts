/**
 * Matrices as panels: blocks of some rows, in which the rows lie side by side and the columns follow each other. So kernels
 * load several rows at once, and go through memory in the order in which it lies.
 */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { Variants } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { kernel, lines, vectors } from "./wgsl.ts";

/** Rows of a panel: as many as the tallest tile of a CPU has. */
export const PANEL_ROWS = 16;

/** Shape of the panels of a matrix, or of several: [batch, panels, columns, PANEL]. */
export const packedShape = (batch: number, rows: number, columns: number): readonly number[] => [
  batch,
  Math.ceil(rows / PANEL_ROWS),
  columns,
  PANEL_ROWS,
];

/** Variants that work on `what`, with that in front of their names. */
export const variantsOn = (what: string, variants: Variants): Variants =>
  Object.fromEntries(Object.entries(variants).map(([name, make]) => [`${what}, ${name}`, make]));

/** x [..., R, C] to y [..., C, R], in blocks of 4×4 where sizes allow; neighbours write side by side. */
export const transposeInner = (x: Operand, y: Operand): Kernel =>
  packRowsBy(x.shape[x.shape.length - 2], x, y, "turned");

/** x [batch, R, C] to panels y; R is a multiple of 4. */
export const packRows = (x: Operand, y: Operand): Kernel => packRowsBy(PANEL_ROWS, x, y, "panels");

const packRowsBy = (panel: number, x: Operand, y: Operand, label: string): Kernel => {
  const [R, C] = x.shape.slice(-2);
  const width = R % 4 === 0 && C % 4 === 0 && panel % 4 === 0 ? 4 : 1;
  const bind = width === 4 ? vectors : (operand: Operand) => operand;
  const each = C % (4 * width) === 0 ? 4 : 1; // neighbours along a row share a line of the cache
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

/** Row j of the 4×4 matrix whose columns are r0 … r3. */
export const transposedRow = (j: number) => `vec4(r0[${j}], r1[${j}], r2[${j}], r3[${j}])`;
