/** How a GEMM is described: y[row, column] = Σₖ a(row, k) · b(k, column), and the tiles that it is cut into. */
import type { Operand } from "../graph/kernel.ts";
import type { Vectors } from "./wgsl.ts";

/** The sizes of a GEMM. */
export interface GemmSize {
  /** How many matrices are multiplied; `group.z` is the index. */
  readonly batch: number;
  /** Rows of y. */
  readonly rows: number;
  /** In vectors of `width` elements. */
  readonly columns: number;
  /** Elements of a vector of columns. */
  readonly width: 1 | 4;
}

/** A GEMM: its operands, and the WGSL that loads and stores their elements. */
export interface GemmSpec extends GemmSize {
  /** Label of the kernel. */
  readonly label: string;
  /** Operands that are read, under their names in WGSL. */
  readonly reads: Readonly<Record<string, Operand | Vectors>>;
  /** Operands that are written, under their names in WGSL. */
  readonly writes: Readonly<Record<string, Operand | Vectors>>;
  /** Sizes, known as `p.name` to all WGSL below; so are `p.M` rows, `p.N` columns, and `group.z`, below `batch`. */
  readonly sizes: Readonly<Record<string, number>>;
  /** Neighbouring rows that one load of `a` brings; 4 as a vec4, from a row that is a multiple of 4. 1 if not given. */
  readonly rowsAtOnce?: 1 | 4;
  /** How many rows exist ([1], u32), if not all: no more workgroups are dispatched than they need. */
  readonly count?: Operand;
  /** Statements at the beginning. */
  readonly prologue?: string;
  /** Statements that declare, under names that end in `i`, what loads of the row `row{i}` need. */
  readonly rowPrologue?: (i: string) => string;
  /**
   * The loops over k around `body(k, last)`, in which k steps by `step` up to `last`; before the body, statements for
   * each of the `rows` (their `i`). The bounds of the loops must be the same for all invocations of a workgroup.
   */
  readonly mainLoop: (
    rows: readonly string[],
    step: number,
    body: (k: string, last: string) => string,
  ) => string;
  /** An expression for a(row, k) of the row `row{i}`. */
  readonly loadA: (i: string, k: string) => string;
  /** An expression for b(k, column), a vector of `width`. */
  readonly loadB: (k: string, column: string) => string;
  /**
   * Statements that store a row of the result; `put` makes those for each column from an expression of index and value.
   */
  readonly epilogue: (
    row: string,
    put: (write: (column: string, value: string) => string) => string,
  ) => string;
}

/** How the result of a GEMM is cut into tiles. */
export interface Tile {
  /** Rows of an invocation, and its columns in vectors. */
  readonly rows: number;
  /** Columns of an invocation, in vectors. */
  readonly columns: number;
  /** Invocations of a workgroup along the columns and along the rows. */
  readonly lanes: readonly [number, number];
  /**
   * Steps of k that are loaded into workgroup memory at once; 0 where workgroup memory is not used. The loads of each
   * side of a workgroup's tile (in vectors) have to be a multiple of its invocations.
   */
  readonly shared: number;
  /**
   * Each invocation loads a share of a and b, and the workgroup, 4×2 invocations and one subgroup, exchanges them with
   * `subgroupShuffle`.
   */
  readonly subgroupShuffle?: boolean;
}
