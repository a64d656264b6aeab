/** Which tiles a GEMM may be cut into, the best guess for the adapter first. */
import type { Kernel } from "../graph/kernel.ts";
import type { AdapterTraits, Variants } from "../graph/lowering.ts";
import type { GemmSize, Tile } from "./gemm_spec.ts";

/** Ways to compute a product of this size, by the names of their tiles; the best guess for the adapter first. */
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
 * A CPU runs 8 invocations as one vector, loads from memory one after the other and works at a tile of registers that it
 * keeps in its first cache: nanoseconds of a multiplication, and of a loaded element for all 8, as measured. Larger tiles
 * would load less, but 32 KB of code is all that the cache of instructions holds: a longer loop takes twice the time.
 */
const MULTIPLICATION = 0.55, LOAD = 4;

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
          const each = ofRows * ofColumns * MULTIPLICATION + loads * LOAD;
          const cost = each * Math.ceil(groups / navigator.hardwareConcurrency);
          return { rows: tileRows, columns: tileColumns, shared: 0, ...arrangement, cost };
        },
      )
    )
  );
  return tiles.sort((a, b) => a.cost - b.cost).slice(0, 4).map(({ cost: _, ...tile }) => tile);
};

const ARRANGEMENTS: readonly Pick<Tile, "lanes" | "subgroupShuffle">[] = [
  { lanes: [8, 1] },
  { lanes: [4, 2] },
  { lanes: [2, 4] },
  { lanes: [1, 8] },
  { lanes: [4, 2], subgroupShuffle: true },
];

/** Workgroups that keep a large GPU busy. */
const BUSY = 256;

/** Large tiles read the least, small ones fill a GPU with little work. */
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
    return padding * Math.max(1, BUSY / (down * across * batch));
  };
  // Among tiles of equal waste the order above stands.
  return tiles.sort((a, b) => Math.round(4 * Math.log2(waste(a) / waste(b))));
};
