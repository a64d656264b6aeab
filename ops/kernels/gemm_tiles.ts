/** Which tiles a GEMM may be cut into, the best guess for the adapter first. */
import type { Kernel } from "../graph/kernel.ts";
import type { AdapterTraits, Variants } from "../graph/lowering.ts";
import type { GemmSize, Tile } from "./gemm_spec.ts";

/** Variants of a GEMM of this size, by the names of their tiles; the best guess for the adapter first. */
export const tileVariants = (
  size: GemmSize,
  adapter: AdapterTraits,
  kernels: (tile: Tile) => readonly Kernel[],
): Variants =>
  Object.fromEntries(
    (adapter.cpu ? cpuTiles : gpuTiles)(size, adapter).map((
      tile,
    ) => [nameOf(tile), () => kernels(tile)]),
  );

const nameOf = ({ rows, columns, lanes, shared, subgroupShuffle }: Tile) =>
  `${rows}×${columns} in ${lanes[1]}×${lanes[0]}${shared > 0 ? `, ${shared} shared` : ""}${
    subgroupShuffle ? ", by subgroups" : ""
  }`;

/**
 * A software adapter runs 8 invocations as one vector, and keeps a tile of registers in its first-level cache:
 * nanoseconds of a fused multiply-add, and of loading an element, for all 8 (lavapipe 25.0, two cores, November 2026).
 * Larger tiles load less, but a loop of more than 32 KB, the instruction cache, takes twice the time.
 */
const MULTIPLY_ADD = 0.55, LOAD = 4;

/** Variants that are offered for a CPU. */
const CPU_VARIANTS = 4;

const cpuTiles = ({ rows, columns, width, batch }: GemmSize, { minSubgroupSize }: AdapterTraits): Tile[] => {
  const tiles = [16, 8].flatMap((tileRows) =>
    [4, 1].flatMap((tileColumns) =>
      ARRANGEMENTS.filter(({ subgroupShuffle }) => !subgroupShuffle || minSubgroupSize >= 8).map(
        (arrangement) => {
          const { lanes: [across, down], subgroupShuffle } = arrangement;
          const groups = batch * Math.ceil(rows / tileRows / down) *
            Math.ceil(columns / tileColumns / across);
          const [ofRows, ofColumns] = [tileRows, tileColumns * width];
          const loads = subgroupShuffle ? ofRows / across + ofColumns / down : ofRows + ofColumns;
          const perStep = ofRows * ofColumns * MULTIPLY_ADD + loads * LOAD;
          const cost = perStep * Math.ceil(groups / navigator.hardwareConcurrency);
          return { rows: tileRows, columns: tileColumns, shared: 0, ...arrangement, cost };
        },
      )
    )
  );
  return tiles.sort((a, b) => a.cost - b.cost).slice(0, CPU_VARIANTS).map(({ cost: _, ...tile }) => tile);
};

/** Eight invocations of a workgroup, along columns and rows. */
const ARRANGEMENTS: readonly Pick<Tile, "lanes" | "subgroupShuffle">[] = [
  { lanes: [8, 1] },
  { lanes: [4, 2] },
  { lanes: [2, 4] },
  { lanes: [1, 8] },
  { lanes: [4, 2], subgroupShuffle: true },
];

/** Workgroups that occupy a large GPU: an estimate, not measured. */
const FULL_OCCUPANCY = 256;

/** Large tiles load the least; small ones occupy a GPU with little work. */
const gpuTiles = ({ rows, columns, batch }: GemmSize): Tile[] => {
  const tiles: Tile[] = [
    { rows: 8, columns: 2, lanes: [16, 16], shared: 8 },
    { rows: 8, columns: 2, lanes: [8, 16], shared: 16 },
    { rows: 4, columns: 2, lanes: [8, 16], shared: 16 },
    { rows: 4, columns: 1, lanes: [16, 16], shared: 16 },
    { rows: 4, columns: 1, lanes: [8, 8], shared: 16 },
    { rows: 4, columns: 2, lanes: [8, 8], shared: 0 },
  ];
  const waste = ({ rows: r, columns: c, lanes: [x, y] }: Tile) => {
    const [down, across] = [Math.ceil(rows / r / y), Math.ceil(columns / c / x)];
    const padding = down * r * y * across * c * x / rows / columns;
    return padding * Math.max(1, FULL_OCCUPANCY / (down * across * batch));
  };
  // The sort is stable: tiles of equal waste keep the order above.
  return tiles.sort((a, b) => Math.round(4 * Math.log2(waste(a) / waste(b))));
};
