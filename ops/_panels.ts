/**
 * The second operand of a product in panels that fit a uniform buffer. The software adapter reads storage lane by lane
 * but uniforms once for all lanes, which nearly doubles the speed of products; a real GPU has caches for that.
 */
import { alignmentOf, type Kernel, kernel, type Operand, vectors } from "./kernel.ts";
import type { AdapterTraits, Shape } from "./tensor.ts";

/** What every WebGPU adapter lets a uniform binding hold, in vec4s. */
export const PANEL_VECTORS = 65536 / 16;

/** Part of a matrix [K, N]; rows in steps of the reduction, columns in vec4s. */
export interface Panel {
  /** The matrix itself, or a uniform [rows, pitch] with these rows and columns of it. */
  readonly operand: Operand;
  readonly uniform: boolean;
  readonly firstRow: number;
  readonly lastRow: number;
  readonly firstColumn: number;
  readonly columns: number;
  /** Vectors from one row to the next. */
  readonly pitch: number;
}

/** Products of fewer rows than this are not worth several dispatches. */
const FEWEST_ROWS = 256;

/** Nor is any product worth more dispatches than this: large ones keep both cores busy in one. */
const MOST_PANELS = 128;

/** Should a product of `rows` rows and b [K, N] go by panels of b? */
export const usesPanels = (rows: number, K: number, N: number, { software }: AdapterTraits): boolean =>
  software && rows >= FEWEST_ROWS && N % 4 === 0 && K * N <= MOST_PANELS * 4 * PANEL_VECTORS;

/** b [K, N] in panels of at most 1024 rows, with the kernel that packs them; the reduction goes `steps` at a time. */
export const panelsOf = (
  b: Operand,
  K: number,
  N: number,
  steps: 1 | 4,
  scratch: (shape: Shape) => Operand,
): { readonly pack: Kernel; readonly panels: readonly Panel[] } => {
  const rows = Math.min(Math.ceil(K / 4) * 4, 1024); // panels begin at multiples of 256 bytes
  // Whole tiles of 4 vectors, as many as fit.
  const pitch = Math.min(Math.ceil(N / 16) * 4, Math.floor(PANEL_VECTORS / rows / 4) * 4);
  const down = Math.ceil(K / rows), across = Math.ceil(N / 4 / pitch);
  const size = rows * pitch;
  // A uniform binding has a fixed length: the last panel's reaches behind the panels.
  const packed = scratch([4 * (down * across * size + PANEL_VECTORS)]);
  const pack = kernel({
    label: "packPanels",
    reads: { b: vectors(b) },
    writes: { packed: vectors(packed) },
    sizes: { K, N: N / 4, rows, pitch, across },
    threads: down * across * size,
    main: /* wgsl */ `
  let panel = id / (p.rows * p.pitch);
  let row = panel / p.across * p.rows + id / p.pitch % p.rows;
  let column = panel % p.across * p.pitch + id % p.pitch;
  if (row < p.K && column < p.N) { packed[id] = b[row * p.N + column]; } else { packed[id] = vec4<f32>(0.0); }`,
  });
  const panels: Panel[] = [];
  for (let i = 0; i < down; i++) {
    for (let j = 0; j < across; j++) {
      panels.push({
        operand: { ...packed, offset: 4 * (i * across + j) * size, shape: [4 * PANEL_VECTORS] },
        uniform: true,
        firstRow: i * rows / steps,
        lastRow: Math.min(K, (i + 1) * rows) / steps,
        firstColumn: j * pitch,
        columns: Math.min(pitch, N / 4 - j * pitch),
        pitch,
      });
    }
  }
  return { pack, panels };
};

/** The whole of b [rows, columns] (in steps and vectors) as the only panel. */
export const wholePanel = (b: Operand, rows: number, columns: number, pitch: number): Panel => ({
  operand: b,
  uniform: false,
  firstRow: 0,
  lastRow: rows,
  firstColumn: 0,
  columns,
  pitch,
});

/** Some rows of a matrix through a uniform window on its memory. */
export interface RowPanel {
  readonly operand: Operand;
  readonly uniform: boolean;
  readonly first: number;
  readonly last: number;
  /** Vectors of the matrix before the window. */
  readonly before: number;
}

/**
 * The rows of b, `width` elements each, in windows of 64 KiB: no packing, as rows lie one after the other. Null where
 * the adapter does not profit, or a window would not fit the memory.
 */
export const rowPanels = (
  b: Operand,
  rows: number,
  width: number,
  { software }: AdapterTraits,
): RowPanel[] | null => {
  const room = 4 * PANEL_VECTORS;
  // A window begins where a binding may, and a row somewhat behind it.
  const alignment = alignmentOf(b);
  const each = Math.floor((room - alignment + 1) / width);
  const fits = rows * width >= room && rows * width <= MOST_PANELS * room && rows * width % alignment === 0;
  if (!software || !fits || width % 4 !== 0 || each === 0) return null;
  const panels: RowPanel[] = [];
  for (let first = 0; first < rows; first += each) {
    const start = Math.min(first * width, rows * width - room);
    const before = start - start % alignment;
    panels.push({
      operand: { ...b, offset: b.offset + before, shape: [room] },
      uniform: true,
      first,
      last: Math.min(rows, first + each),
      before: before / 4,
    });
  }
  return panels;
};

/** All rows at once, from storage. */
export const allRows = (b: Operand, rows: number): RowPanel => (
  { operand: b, uniform: false, first: 0, last: rows, before: 0 }
);
