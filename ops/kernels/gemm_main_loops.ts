/**
 * The main loop of a GEMM, over k, in WGSL: loading into registers, through workgroup memory, or shared in a subgroup.
 */
import type { GemmSpec, Tile } from "./gemm_spec.ts";
import { lines, range } from "./wgsl.ts";

/** The main loop in which each invocation loads what its tile needs. */
export const registerLoop = (
  { rowsAtOnce = 1, rowPrologue, mainLoop, loadA, loadB, width }: GemmSpec,
  tile: Tile,
): string => {
  const loads = range(tile.rows / rowsAtOnce).map(String);
  return `
  ${
    loads.map((i) =>
      `let row${i} = min(ownRow + ${+i * rowsAtOnce}u, p.M - ${rowsAtOnce}u);\n${rowPrologue?.(i) ?? ""}`
    )
      .join("\n")
  }
  ${lines(tile.columns, (j) => `let n${j} = min(ownColumn + ${j}u, p.N - 1u);`)}
  ${
    mainLoop(loads, 1, (k) => `
    ${lines(tile.columns, (j) => `let b${j} = ${loadB(k, `n${j}`)};`)}
    ${loads.map((i) => `let a${i} = ${loadA(i, k)};`).join("\n")}
    ${microKernel(tile, width, (i) => rowsAtOnce === 1 ? `a${i}` : `a${i >> 2}[${i % 4}]`, (j) => `b${j}`)}`)
  }`;
};

/**
 * The main loop for a subgroup of 4×2 invocations, two steps of k at a time. Four invocations of a row need the same
 * elements of a: each loads half of them for one of the steps. The two of a column need the same elements of b: each
 * loads them for one of the steps. All get them by `subgroupShuffle`.
 */
export const subgroupShuffleLoop = (
  { rowsAtOnce = 1, rowPrologue, mainLoop, loadA, loadB, width }: GemmSpec,
  tile: Tile,
): string => {
  const half = tile.rows / rowsAtOnce / 2;
  const loads = range(half).map(String);
  const [ofRows, ofColumns] = [vectorType(rowsAtOnce), vectorType(width)];
  return `
  ${
    loads.map((i) =>
      `let row${i} = min(ownRow + (place % 4u / 2u * ${half}u + ${i}u) * ${rowsAtOnce}u, p.M - ${rowsAtOnce}u);\n${
        rowPrologue?.(i) ?? ""
      }`
    ).join("\n")
  }
  ${lines(tile.columns, (j) => `let n${j} = min(ownColumn + ${j}u, p.N - 1u);`)}
  ${
    mainLoop(loads, 2, (k, last) => `
    let aStep = ${k} + place % 2u;
    let bStep = ${k} + place / 4u;
    ${
      lines(half, (i) => `let ownA${i} = select(${ofRows}(0.0), ${loadA(`${i}`, "aStep")}, aStep < ${last});`)
    }
    ${
      lines(
        tile.columns,
        (j) => `let ownB${j} = select(${ofColumns}(0.0), ${loadB("bStep", `n${j}`)}, bStep < ${last});`,
      )
    }
    for (var step = 0u; step < 2u; step++) {
      ${lines(tile.columns, (j) => `let b${j} = subgroupShuffle(ownB${j}, step * 4u + place % 4u);`)}
      ${
      lines(
        2 * half,
        (i) => `let a${i} = subgroupShuffle(ownA${i % half}, place / 4u * 4u + ${i < half ? 0 : 2}u + step);`,
      )
    }
      ${microKernel(tile, width, (i) => rowsAtOnce === 1 ? `a${i}` : `a${i >> 2}[${i % 4}]`, (j) => `b${j}`)}
    }`)
  }`;
};

/** The outer product of a column of a and a row of b, added to the tile. */
const microKernel = (
  tile: Tile,
  width: 1 | 4,
  a: (i: number) => string,
  b: (j: number) => string,
): string => cells(tile, (i, j) => `c${i}_${j} = fma(${vectorType(width)}(${a(i)}), ${b(j)}, c${i}_${j});`);

/** Declarations of the workgroup memory of `workgroupTiledLoop`. */
export const sharedMemory = (
  { width, rowsAtOnce = 1 }: GemmSpec,
  { rows, columns, lanes, shared }: Tile,
): string => `
var<workgroup> aTile: array<${vectorType(rowsAtOnce)}, ${shared * rows * lanes[1] / rowsAtOnce}>;
var<workgroup> bTile: array<${vectorType(width)}, ${shared * columns * lanes[0]}>;`;

/** The main loop in which the workgroup loads `tile.shared` steps into workgroup memory: neighbours load neighbours. */
export const workgroupTiledLoop = (
  { rowsAtOnce = 1, rowPrologue, mainLoop, loadA, loadB, width }: GemmSpec,
  tile: Tile,
): string => {
  const [across, down] = tile.lanes;
  const invocations = across * down;
  const [height, breadth] = [tile.rows * down / rowsAtOnce, tile.columns * across];
  // Neighbouring elements of a are the steps of a row, or several rows.
  const byRows = rowsAtOnce === 4;
  const rowStride = byRows ? height : invocations / tile.shared; // from one load of an invocation to its next
  const loads = range(byRows ? 1 : height / rowStride).map(String);
  const aSteps = range(byRows ? tile.shared * height / invocations : 1);
  const bSteps = range(tile.shared * breadth / invocations);
  const aStep = (s: number) =>
    byRows ? `(lane / ${height}u + ${s * invocations / height}u)` : `(lane % ${tile.shared}u)`;
  const aRow = (i: string) =>
    byRows ? `(lane % ${height}u)` : `(lane / ${tile.shared}u + ${+i * rowStride}u)`;
  const bStep = (s: number) => `(lane / ${breadth}u + ${s * invocations / breadth}u)`;
  return `
  ${
    loads.map((i) =>
      `let row${i} = min(firstRow + ${aRow(i)} * ${rowsAtOnce}u, p.M - ${rowsAtOnce}u);\n${
        rowPrologue?.(i) ?? ""
      }`
    ).join("\n")
  }
  let column = min(firstColumn + lane % ${breadth}u, p.N - 1u);
  ${
    mainLoop(loads, tile.shared, (k, last) => `
    workgroupBarrier();
    ${
      loads.flatMap((i) =>
        aSteps.map(aStep).map((step) =>
          `aTile[${step} * ${height}u + ${aRow(i)}] = select(${vectorType(rowsAtOnce)}(0.0), ${
            loadA(i, `(${k} + ${step})`)
          }, ${k} + ${step} < ${last});`
        )
      ).join("\n")
    }
    ${
      bSteps.map(bStep).map((step) =>
        `bTile[${step} * ${breadth}u + lane % ${breadth}u] = select(${vectorType(width)}(0.0), ${
          loadB(`(${k} + ${step})`, "column")
        }, ${k} + ${step} < ${last});`
      ).join("\n")
    }
    workgroupBarrier();
    for (var step = 0u; step < ${tile.shared}u; step++) {
      ${
      lines(
        tile.columns,
        (j) => `let b${j} = bTile[step * ${breadth}u + lane % ${across}u * ${tile.columns}u + ${j}u];`,
      )
    }
      ${
      lines(
        tile.rows / rowsAtOnce,
        (i) =>
          `let a${i} = aTile[step * ${height}u + lane / ${across}u * ${tile.rows / rowsAtOnce}u + ${i}u];`,
      )
    }
      ${microKernel(tile, width, (i) => rowsAtOnce === 1 ? `a${i}` : `a${i >> 2}[${i % 4}]`, (j) => `b${j}`)}
    }`)
  }`;
};

/** Lines of WGSL, one for each row and column (vector) of a tile. */
export const cells = (tile: Tile, line: (row: number, column: number) => string): string =>
  lines(tile.rows, (i) => lines(tile.columns, (j) => line(i, j)));

/** The WGSL type of `width` columns. */
export const vectorType = (width: 1 | 4): string => width === 4 ? "vec4<f32>" : "f32";
