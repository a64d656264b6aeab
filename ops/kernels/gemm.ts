/**
 * GEMMs in the wide sense, y[row, column] = Σₖ a(row, k) · b(k, column): matrix products, convolutions and their
 * gradients.
 *
 * A `GemmSpec` says how rows, columns and k are addressed; here the work is cut into tiles. Every invocation keeps a
 * tile of the result in registers and adds outer products to it (the micro-kernel), so that each loaded element is used
 * several times. On a real GPU the workgroup first loads the tiles of a and b into workgroup memory; a CPU has caches
 * for that.
 */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { LoweringContext, StatisticsEpilogue } from "../graph/lowering.ts";
import {
  cells,
  registerLoop,
  sharedMemory,
  subgroupShuffleLoop,
  vectorType,
  workgroupTiledLoop,
} from "./gemm_main_loops.ts";
import type { GemmSpec, Tile } from "./gemm_spec.ts";
import { dispatchGrid, kernel, lines, range, vectors } from "./wgsl.ts";

/**
 * The kernels that compute a GEMM in tiles. With `statistics`, and where tiles and groups of rows fit together, its
 * epilogue also writes mean and M2 of the columns of each tile.
 */
export const gemmKernels = (
  spec: GemmSpec,
  tile: Tile,
  scratch: LoweringContext<never>["scratch"],
  statistics: StatisticsEpilogue | null = null,
): readonly Kernel[] => {
  const { lanes: [across, down] } = tile;
  const tilesAcross = Math.ceil(spec.columns / tile.columns / across);
  const perGroup = tile.rows * down;
  const count = spec.count === undefined ? null : { rows: spec.count, workgroups: scratch([3], "u32") };
  const rowsPerPartial = Math.min(ROWS_PER_PARTIAL, tile.rows);
  const fused = statistics !== null && spec.batch === 1 && count === null &&
    statistics.rows % tile.rows === 0;
  const partials = fused ? scratch([spec.rows / rowsPerPartial, 2, spec.columns * spec.width]) : null;
  if (partials !== null) statistics!.emit(partials, rowsPerPartial);
  return [
    ...count === null ? [] : [dispatchOfRows(count.rows, count.workgroups, perGroup, tilesAcross)],
    kernel({
      label: spec.label,
      reads: spec.reads,
      writes: partials === null
        ? spec.writes
        : { ...spec.writes, parts: spec.width === 4 ? vectors(partials) : partials },
      // The arrangement of lanes is a size: without workgroup memory it is no part of the code, so that fewer shaders
      // have to be compiled.
      sizes: { ...spec.sizes, M: spec.rows, N: spec.columns, across: tilesAcross, lanesAcross: across, down },
      workgroupSize: across * down,
      workgroups: count === null
        ? dispatchGrid(Math.ceil(spec.rows / perGroup) * tilesAcross, spec.batch)
        : { indirect: count.workgroups },
      subgroups: tile.subgroupShuffle,
      functions: tile.shared === 0 ? "" : sharedMemory(spec, tile),
      main: `
  let tile = group.y * groups.x + group.x;
  let firstRow = tile / p.across * p.down * ${tile.rows}u;
  let firstColumn = tile % p.across * p.lanesAcross * ${tile.columns}u;
  let place = ${tile.subgroupShuffle ? "subgroupLane" : "lane"};
  let ownRow = firstRow + place / p.lanesAcross * ${tile.rows}u;
  let ownColumn = firstColumn + place % p.lanesAcross * ${tile.columns}u;
  ${spec.prologue ?? ""}
  ${cells(tile, (i, j) => `var c${i}_${j} = ${vectorType(spec.width)}(0.0);`)}
  ${
        (tile.subgroupShuffle ? subgroupShuffleLoop : tile.shared === 0 ? registerLoop : workgroupTiledLoop)(
          spec,
          tile,
        )
      }
  ${
        lines(tile.rows, (i) =>
          `if (ownRow + ${i}u < p.M) { ${
            spec.epilogue(`(ownRow + ${i}u)`, (write) =>
              lines(
                tile.columns,
                (j) => `if (ownColumn + ${j}u < p.N) { ${write(`(ownColumn + ${j}u)`, `c${i}_${j}`)} }`,
              ))
          } }`)
      }
  ${partials === null ? "" : statisticsEpilogue(tile, rowsPerPartial)}`,
    }),
  ];
};

/**
 * Rows of a partial mean and M2: a divisor of the rows of every tile for CPUs, so that these give the same bits
 * whichever tile is chosen.
 */
const ROWS_PER_PARTIAL = 8;

/**
 * WGSL of the mean and M2 of each column, for each `rowsPerPartial` rows of a tile. All rows of a tile exist, or none.
 */
const statisticsEpilogue = (tile: Tile, rowsPerPartial: number): string => `
  if (ownRow < p.M) {
    ${
  cells({ ...tile, rows: tile.rows / rowsPerPartial }, (partial, j) => {
    const own = range(rowsPerPartial).map((i) => `c${partial * rowsPerPartial + i}_${j}`);
    return `
    if (ownColumn + ${j}u < p.N) {
      let mean = (${own.join(" + ")}) * ${1 / rowsPerPartial};
      let at = (ownRow / ${rowsPerPartial}u + ${partial}u) * 2u * p.N + ownColumn + ${j}u;
      parts[at] = mean;
      parts[at + p.N] = ${own.map((c) => `(${c} - mean) * (${c} - mean)`).join(" + ")};
    }`;
  })
}
  }`;

/** Writes the workgroups of an indirect dispatch: as many as the first `count` rows need. */
const dispatchOfRows = (count: Operand, output: Operand, perGroup: number, across: number) =>
  kernel({
    label: "dispatchOfRows",
    reads: { count },
    writes: { workgroups: output },
    sizes: { perGroup, across },
    workgroupSize: 1,
    threads: 1,
    main:
      `workgroups[0] = (count[0] + p.perGroup - 1u) / p.perGroup * p.across; workgroups[1] = 1u; workgroups[2] = 1u;`,
  });
