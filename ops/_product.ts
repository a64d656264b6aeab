/**
 * Everything shaped like a product of matrices: y[row, column] = Σₖ a(row, k) · b(k, column).
 *
 * An op says how rows, columns and the sum are addressed; here the work is cut into tiles. Every invocation keeps a tile
 * of the result in registers and adds outer products to it, so that each loaded element is used several times. On a real
 * GPU a workgroup first brings what its tiles need into workgroup memory; a CPU has caches for that.
 */
import { type Kernel, kernel, type Operand, type Vectors, vectors } from "./kernel.ts";
import type { AdapterTraits, LoweringContext, MomentsWanted, Variants } from "./tensor.ts";

/** How much there is to compute. */
export interface ProductSize {
  /** Products side by side: `group.z` says which. */
  readonly batch: number;
  readonly rows: number;
  /** In vectors of `width` elements. */
  readonly columns: number;
  readonly width: 1 | 4;
}

export interface Product extends ProductSize {
  readonly label: string;
  readonly reads: Readonly<Record<string, Operand | Vectors>>;
  readonly writes: Readonly<Record<string, Operand | Vectors>>;
  /** Beside them `p.M` rows and `p.N` columns are known to all WGSL below, as is `group.z`, below `batch`. */
  readonly sizes: Readonly<Record<string, number>>;
  /** How many rows one load of `a` brings: neighbours, as a vec4, from a multiple of 4 on. */
  readonly rowsAtOnce?: 1 | 4;
  /** Only so many rows exist ([1], u32): no more tiles are started than they need. */
  readonly count?: Operand;
  /** Statements at the beginning. */
  readonly before?: string;
  /** Declares, under names that end in `i`, what loads of the row `row{i}` need. */
  readonly row?: (i: string) => string;
  /**
   * The loops over k: `body(k, last)` goes where k steps by `step` up to `last`. Before it, statements for the rows named
   * may stand. What the loops depend on must be the same for all invocations of a workgroup.
   */
  readonly loops: (
    rows: readonly string[],
    step: number,
    body: (k: string, last: string) => string,
  ) => string;
  /** a(row, k) of the row `i`. */
  readonly a: (i: string, k: string) => string;
  readonly b: (k: string, column: string) => string;
  /** Puts values into a row of the result: `put` gives the statements of each column's place and value. */
  readonly store: (row: string, put: (write: (column: string, value: string) => string) => string) => string;
}

/** How the work of a product is cut. */
export interface Tile {
  /** Of an invocation: rows, and columns in vectors. */
  readonly rows: number;
  readonly columns: number;
  /** Invocations of a workgroup along columns and rows. */
  readonly lanes: readonly [number, number];
  /**
   * Steps of k that are brought into workgroup memory at once; 0 without. For each side of a workgroup's tile (in vectors)
   * these are loads for all its invocations, none left over.
   */
  readonly shared: number;
  /** The workgroup, 4×2 invocations, is one subgroup, whose invocations hand on to each other what each of them loads. */
  readonly handedOn?: boolean;
}

/** Ways to compute a product of this size, by the names of their tiles; the best guess for the adapter first. */
export const tileVariants = (
  size: ProductSize,
  adapter: AdapterTraits,
  kernels: (tile: Tile) => readonly Kernel[],
): Variants =>
  Object.fromEntries(
    (adapter.software ? cpuTiles : gpuTiles)(size, adapter).map((
      tile,
    ) => [nameOf(tile), () => kernels(tile)]),
  );

const nameOf = ({ rows, columns, lanes, shared, handedOn }: Tile) =>
  `${rows}×${columns} in ${lanes[1]}×${lanes[0]}${shared > 0 ? `, ${shared} shared` : ""}${
    handedOn ? ", by subgroups" : ""
  }`;

/**
 * A CPU runs 8 invocations as one vector, loads from memory one after the other and works at a tile of registers that it
 * keeps in its first cache: nanoseconds of a multiplication, and of a loaded element for all 8, as measured. Larger tiles
 * would load less, but 32 KB of code is all that the cache of instructions holds: a longer loop takes twice the time.
 */
const MULTIPLICATION = 0.55, LOAD = 4;

const cpuTiles = ({ rows, columns, width, batch }: ProductSize, { subgroups }: AdapterTraits): Tile[] => {
  const tiles = [16, 8].flatMap((tileRows) =>
    [4, 1].flatMap((tileColumns) =>
      ARRANGEMENTS.filter(({ handedOn }) => !handedOn || subgroups >= 8).map((arrangement) => {
        const { lanes: [across, down], handedOn } = arrangement;
        const groups = batch * Math.ceil(rows / tileRows / down) * Math.ceil(columns / tileColumns / across);
        const [ofRows, ofColumns] = [tileRows, tileColumns * width];
        const loads = handedOn ? ofRows / across + ofColumns / down : ofRows + ofColumns;
        const each = ofRows * ofColumns * MULTIPLICATION + loads * LOAD;
        const cost = each * Math.ceil(groups / navigator.hardwareConcurrency);
        return { rows: tileRows, columns: tileColumns, shared: 0, ...arrangement, cost };
      })
    )
  );
  return tiles.sort((a, b) => a.cost - b.cost).slice(0, 4).map(({ cost: _, ...tile }) => tile);
};

const ARRANGEMENTS: readonly Pick<Tile, "lanes" | "handedOn">[] = [
  { lanes: [8, 1] },
  { lanes: [4, 2] },
  { lanes: [2, 4] },
  { lanes: [1, 8] },
  { lanes: [4, 2], handedOn: true },
];

/** Workgroups that keep a large GPU busy. */
const BUSY = 256;

/** Large tiles read the least, small ones fill a GPU with little work. */
const gpuTiles = ({ rows, columns, batch }: ProductSize): Tile[] => {
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

/** The kernels that compute a product in such tiles. */
export const tiled = (
  spec: Product,
  tile: Tile,
  scratch: LoweringContext<never>["scratch"],
  moments: MomentsWanted | null = null,
): readonly Kernel[] => {
  const { lanes: [across, down] } = tile;
  const tilesAcross = Math.ceil(spec.columns / tile.columns / across);
  const perGroup = tile.rows * down;
  const count = spec.count === undefined ? null : { rows: spec.count, workgroups: scratch([3], "u32") };
  const each = Math.min(PART, tile.rows);
  const parts = moments === null || spec.batch > 1 || count !== null || moments.rows % tile.rows > 0
    ? null
    : scratch([spec.rows / each, 2, spec.columns * spec.width]);
  if (parts !== null) moments!.leave(parts, each);
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
        ? folded(Math.ceil(spec.rows / perGroup) * tilesAcross, spec.batch)
        : { indirect: count.workgroups },
      subgroups: tile.handedOn,
      functions: tile.shared === 0 ? "" : sharedMemory(spec, tile),
      main: `
  let tile = group.y * groups.x + group.x;
  let firstRow = tile / p.across * p.down * ${tile.rows}u;
  let firstColumn = tile % p.across * p.lanesAcross * ${tile.columns}u;
  let place = ${tile.handedOn ? "subgroupLane" : "lane"};
  let ownRow = firstRow + place / p.lanesAcross * ${tile.rows}u;
  let ownColumn = firstColumn + place % p.lanesAcross * ${tile.columns}u;
  ${spec.before ?? ""}
  ${cells(tile, (i, j) => `var c${i}_${j} = ${vectorType(spec.width)}(0.0);`)}
  ${(tile.handedOn ? inSubgroup : tile.shared === 0 ? inRegisters : inWorkgroup)(spec, tile)}
  ${
        lines(tile.rows, (i) =>
          `if (ownRow + ${i}u < p.M) { ${
            spec.store(`(ownRow + ${i}u)`, (write) =>
              lines(
                tile.columns,
                (j) => `if (ownColumn + ${j}u < p.N) { ${write(`(ownColumn + ${j}u)`, `c${i}_${j}`)} }`,
              ))
          } }`)
      }
  ${parts === null ? "" : leftMoments(tile, each)}`,
    }),
  ];
};

/** Rows whose moments are left together: those of all tiles of a CPU, so that another tile changes no bit of them. */
const PART = 8;

/** Mean and spread of each column in the parts of a tile. All rows of a tile exist, or none does. */
const leftMoments = (tile: Tile, each: number): string => `
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

/** The sum, each invocation loading for its own tile. */
const inRegisters = ({ rowsAtOnce = 1, row, loops, a, b, width }: Product, tile: Tile): string => {
  const loads = range(tile.rows / rowsAtOnce).map(String);
  return `
  ${
    loads.map((i) =>
      `let row${i} = min(ownRow + ${+i * rowsAtOnce}u, p.M - ${rowsAtOnce}u);\n${row?.(i) ?? ""}`
    )
      .join("\n")
  }
  ${lines(tile.columns, (j) => `let n${j} = min(ownColumn + ${j}u, p.N - 1u);`)}
  ${
    loops(loads, 1, (k) => `
    ${lines(tile.columns, (j) => `let b${j} = ${b(k, `n${j}`)};`)}
    ${loads.map((i) => `let a${i} = ${a(i, k)};`).join("\n")}
    ${
      addOuterProduct(tile, width, (i) => rowsAtOnce === 1 ? `a${i}` : `a${i >> 2}[${i % 4}]`, (j) => `b${j}`)
    }`)
  }`;
};

/**
 * The sum, two steps at a time. Of a row of four invocations, which need the same of a, each loads half for one of the
 * steps; of the two in a column, which need the same of b, each loads all for one of them.
 */
const inSubgroup = ({ rowsAtOnce = 1, row, loops, a, b, width }: Product, tile: Tile): string => {
  const half = tile.rows / rowsAtOnce / 2;
  const loads = range(half).map(String);
  const [ofRows, ofColumns] = [vectorType(rowsAtOnce), vectorType(width)];
  return `
  ${
    loads.map((i) =>
      `let row${i} = min(ownRow + (place % 4u / 2u * ${half}u + ${i}u) * ${rowsAtOnce}u, p.M - ${rowsAtOnce}u);\n${
        row?.(i) ?? ""
      }`
    ).join("\n")
  }
  ${lines(tile.columns, (j) => `let n${j} = min(ownColumn + ${j}u, p.N - 1u);`)}
  ${
    loops(loads, 2, (k, last) => `
    let aStep = ${k} + place % 2u;
    let bStep = ${k} + place / 4u;
    ${lines(half, (i) => `let ownA${i} = select(${ofRows}(0.0), ${a(`${i}`, "aStep")}, aStep < ${last});`)}
    ${
      lines(
        tile.columns,
        (j) => `let ownB${j} = select(${ofColumns}(0.0), ${b("bStep", `n${j}`)}, bStep < ${last});`,
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
      ${
      addOuterProduct(tile, width, (i) => rowsAtOnce === 1 ? `a${i}` : `a${i >> 2}[${i % 4}]`, (j) => `b${j}`)
    }
    }`)
  }`;
};

const addOuterProduct = (
  tile: Tile,
  width: 1 | 4,
  a: (i: number) => string,
  b: (j: number) => string,
): string => cells(tile, (i, j) => `c${i}_${j} = fma(${vectorType(width)}(${a(i)}), ${b(j)}, c${i}_${j});`);

const sharedMemory = ({ width, rowsAtOnce = 1 }: Product, { rows, columns, lanes, shared }: Tile): string => `
var<workgroup> aTile: array<${vectorType(rowsAtOnce)}, ${shared * rows * lanes[1] / rowsAtOnce}>;
var<workgroup> bTile: array<${vectorType(width)}, ${shared * columns * lanes[0]}>;`;

/** The sum, in steps that the workgroup loads together: neighbours load what lies side by side. */
const inWorkgroup = ({ rowsAtOnce = 1, row, loops, a, b, width }: Product, tile: Tile): string => {
  const [across, down] = tile.lanes;
  const invocations = across * down;
  const [height, breadth] = [tile.rows * down / rowsAtOnce, tile.columns * across];
  // Of a: a row's steps lie side by side, or several rows at once do.
  const byRows = rowsAtOnce === 4;
  const rowsApart = byRows ? height : invocations / tile.shared; // from one load of an invocation to its next
  const loads = range(byRows ? 1 : height / rowsApart).map(String);
  const aSteps = range(byRows ? tile.shared * height / invocations : 1);
  const bSteps = range(tile.shared * breadth / invocations);
  const aStep = (s: number) =>
    byRows ? `(lane / ${height}u + ${s * invocations / height}u)` : `(lane % ${tile.shared}u)`;
  const aRow = (i: string) =>
    byRows ? `(lane % ${height}u)` : `(lane / ${tile.shared}u + ${+i * rowsApart}u)`;
  const bStep = (s: number) => `(lane / ${breadth}u + ${s * invocations / breadth}u)`;
  return `
  ${
    loads.map((i) =>
      `let row${i} = min(firstRow + ${aRow(i)} * ${rowsAtOnce}u, p.M - ${rowsAtOnce}u);\n${row?.(i) ?? ""}`
    ).join("\n")
  }
  let column = min(firstColumn + lane % ${breadth}u, p.N - 1u);
  ${
    loops(loads, tile.shared, (k, last) => `
    workgroupBarrier();
    ${
      loads.flatMap((i) =>
        aSteps.map(aStep).map((step) =>
          `aTile[${step} * ${height}u + ${aRow(i)}] = select(${vectorType(rowsAtOnce)}(0.0), ${
            a(i, `(${k} + ${step})`)
          }, ${k} + ${step} < ${last});`
        )
      ).join("\n")
    }
    ${
      bSteps.map(bStep).map((step) =>
        `bTile[${step} * ${breadth}u + lane % ${breadth}u] = select(${vectorType(width)}(0.0), ${
          b(`(${k} + ${step})`, "column")
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
      ${
      addOuterProduct(tile, width, (i) => rowsAtOnce === 1 ? `a${i}` : `a${i >> 2}[${i % 4}]`, (j) => `b${j}`)
    }
    }`)
  }`;
};

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

/** In how many parts a sum of `length` is cut when `invocations` would compute it otherwise. */
export const partsFor = (length: number, invocations: number, software: boolean): number => {
  const wanted = Math.ceil((software ? 64 : 32768) / invocations);
  // A part should be long enough to be worth its own copy of the result, and no sum so long that rounding shows.
  return Math.max(1, Math.ceil(length / 8192), Math.min(wanted, Math.floor(length / 64)));
};

const MOST_WORKGROUPS = 65535;

/** `count` workgroups as a grid whose sides stay below WebGPU's limit, `depth` times. */
const folded = (count: number, depth: number): [number, number, number] => {
  const y = Math.ceil(count / MOST_WORKGROUPS);
  return [Math.ceil(count / y), y, depth];
};

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);

/** Lines of WGSL, one for each index below `count`. */
export const lines = (count: number, line: (i: number) => string): string =>
  range(count).map(line).join("\n");

const cells = (tile: Tile, line: (row: number, column: number) => string): string =>
  lines(tile.rows, (i) => lines(tile.columns, (j) => line(i, j)));

/** The element type of `width` columns. */
const vectorType = (width: 1 | 4): string => width === 4 ? "vec4<f32>" : "f32";
