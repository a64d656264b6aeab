/** How a GEMM is described: y[row, column] = Σₖ a(row, k) · b(k, column), and the tiles that it is cut into. */
import type { Operand } from "../graph/kernel.ts";
import type { Vectors } from "./wgsl.ts";

/** How much there is to compute. */
export interface GemmSize {
  /** Products side by side: `group.z` says which. */
  readonly batch: number;
  readonly rows: number;
  /** In vectors of `width` elements. */
  readonly columns: number;
  readonly width: 1 | 4;
}

export interface GemmSpec extends GemmSize {
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
  readonly prologue?: string;
  /** Declares, under names that end in `i`, what loads of the row `row{i}` need. */
  readonly rowPrologue?: (i: string) => string;
  /**
   * The loops over k: `body(k, last)` goes where k steps by `step` up to `last`. Before it, statements for the rows named
   * may stand. What the loops depend on must be the same for all invocations of a workgroup.
   */
  readonly mainLoop: (
    rows: readonly string[],
    step: number,
    body: (k: string, last: string) => string,
  ) => string;
  /** a(row, k) of the row `i`. */
  readonly loadA: (i: string, k: string) => string;
  readonly loadB: (k: string, column: string) => string;
  /** Puts values into a row of the result: `put` gives the statements of each column's place and value. */
  readonly epilogue: (
    row: string,
    put: (write: (column: string, value: string) => string) => string,
  ) => string;
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
  readonly subgroupShuffle?: boolean;
}
