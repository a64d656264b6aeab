/**
 * What the matrix-shaped kernels share: every invocation keeps a tile of the result in registers and adds outer
 * products to it, so that each loaded element is used several times.
 */
import type { AdapterTraits } from "./tensor.ts";

/** Rows of a tile, and columns in vectors of `width` elements. */
export interface Tile {
  readonly rows: number;
  readonly columns: number;
  readonly width: 1 | 4;
  /** Invocations of a workgroup along rows and columns. */
  readonly lanes: readonly [number, number];
  readonly workgroupSize: number;
}

/**
 * On the software adapter 8 invocations are one vector of the CPU: they share a column tile, so that the second
 * operand is the same for all. A real GPU wants more of them, in a square, so that caches serve both operands.
 * `columns` are those of the result; a wide tile pays where the second operand comes from a uniform buffer.
 */
export const tileFor = (columns: number, { software }: AdapterTraits, wide = false): Tile => {
  const width = columns % 4 === 0 ? 4 : 1;
  const lanes = software ? [8, 1] as const : [8, 8] as const;
  return {
    rows: 4,
    columns: width === 1 || wide ? 4 : 2,
    width,
    lanes,
    workgroupSize: lanes[0] * lanes[1],
  };
};

export const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);

/** Lines of WGSL, one for each index below `count`. */
export const lines = (count: number, line: (i: number) => string): string =>
  range(count).map(line).join("\n");

/** Lines of WGSL, one for each row and column of a tile. */
export const tileCells = (tile: Tile, line: (row: number, column: number) => string): string =>
  lines(tile.rows, (i) => lines(tile.columns, (j) => line(i, j)));

/** The element type of `width` columns, and of the first operand's `width` steps. */
export const vectorType = (width: 1 | 4): string => width === 4 ? "vec4<f32>" : "f32";

/** Declares the tile's accumulators c{row}_{column}. */
export const accumulators = (tile: Tile): string =>
  tileCells(tile, (i, j) => `var c${i}_${j} = ${vectorType(tile.width)}(0.0);`);

/**
 * Adds to the tile the product of a{row} (`steps` elements each: the steps of the reduction) and the rows of the second
 * operand that `load(step, column)` reads.
 */
export const multiply = (tile: Tile, steps: 1 | 4, load: (step: number, column: number) => string): string =>
  lines(steps, (u) =>
    lines(tile.columns, (j) => `let b${u}_${j} = ${load(u, j)};`) + "\n" +
    lines(tile.rows, (i) =>
      lines(tile.columns, (j) => {
        const a = steps === 4 ? `a${i}[${u}]` : `a${i}`;
        return `c${i}_${j} = fma(${vectorType(tile.width)}(${a}), b${u}_${j}, c${i}_${j});`;
      })));

/** The grid of workgroups that covers `rows` × `columns` (in vectors) with tiles, `depth` times. */
export const tileGrid = (
  tile: Tile,
  rows: number,
  columns: number,
  depth: number,
): [number, number, number] => [
  Math.ceil(rows / (tile.rows * tile.lanes[0])),
  Math.ceil(columns / (tile.columns * tile.lanes[1])),
  depth,
];

/** Sets row0 and column0 (in vectors), where this invocation's tile starts. */
export const tileOrigin = (tile: Tile): string => `
  let row0 = (group.x * ${tile.lanes[0]}u + lane % ${tile.lanes[0]}u) * ${tile.rows}u;
  let column0 = (group.y * ${tile.lanes[1]}u + lane / ${tile.lanes[0]}u) * ${tile.columns}u;`;
