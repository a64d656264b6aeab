/**
 * Everything shaped like a product of matrices: y[row, column] = Σₖ a(row, k) · b(k, column).
 *
 * An op says how rows, columns and the sum are addressed; here the work is cut into tiles. Every invocation keeps a tile
 * of the result in registers and adds outer products to it, so that each loaded element is used several times. On a real
 * GPU a workgroup first brings what its tiles need into workgroup memory; a CPU has caches for that.
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
import { kernel, lines, range, vectors } from "./wgsl.ts";

/** The kernels that compute a product in such tiles. */
export const gemmKernels = (
  spec: GemmSpec,
  tile: Tile,
  scratch: LoweringContext<never>["scratch"],
  moments: StatisticsEpilogue | null = null,
): readonly Kernel[] => {
  const { lanes: [across, down] } = tile;
  const tilesAcross = Math.ceil(spec.columns / tile.columns / across);
  const perGroup = tile.rows * down;
  const count = spec.count === undefined ? null : { rows: spec.count, workgroups: scratch([3], "u32") };
  const each = Math.min(ROWS_PER_PARTIAL, tile.rows);
  const parts = moments === null || spec.batch > 1 || count !== null || moments.rows % tile.rows > 0
    ? null
    : scratch([spec.rows / each, 2, spec.columns * spec.width]);
  if (parts !== null) moments!.emit(parts, each);
  return [
    ...count === null ? [] : [dispatchOfRows(count.rows, count.workgroups, perGroup, tilesAcross)],
    kernel({
      label: spec.label,
      reads: spec.reads,
      writes: parts === null
        ? spec.writes
        : { ...spec.writes, parts: spec.width === 4 ? vectors(parts) : parts },
      // Without workgroup memory the arrangement of lanes is no part of the code: fewer shaders have to be compiled.
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
  ${parts === null ? "" : statisticsEpilogue(tile, each)}`,
    }),
  ];
};

/** Rows whose moments are left together: those of all tiles of a CPU, so that another tile changes no bit of them. */
const ROWS_PER_PARTIAL = 8;

/** Mean and spread of each column in the parts of a tile. All rows of a tile exist, or none does. */
const statisticsEpilogue = (tile: Tile, each: number): string => `
  if (ownRow < p.M) {
    ${
  cells({ ...tile, rows: tile.rows / each }, (part, j) => {
    const own = range(each).map((i) => `c${part * each + i}_${j}`);
    return `
    if (ownColumn + ${j}u < p.N) {
      let mean = (${own.join(" + ")}) * ${1 / each};
      let at = (ownRow / ${each}u + ${part}u) * 2u * p.N + ownColumn + ${j}u;
      parts[at] = mean;
      parts[at + p.N] = ${own.map((c) => `(${c} - mean) * (${c} - mean)`).join(" + ")};
    }`;
  })
}
  }`;

/** Workgroups for as many row tiles as `count` rows need. */
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

const MOST_WORKGROUPS = 65535;

/** `count` workgroups as a grid whose sides stay below WebGPU's limit, `depth` times. */
const dispatchGrid = (count: number, depth: number): [number, number, number] => {
  const y = Math.ceil(count / MOST_WORKGROUPS);
  return [Math.ceil(count / y), y, depth];
};
