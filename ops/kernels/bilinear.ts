/**
 * WGSL of bilinear resizing along one axis: between which cells of a map a pixel lies, and which pixels lie there. The
 * places are fractions of whole numbers, so that nothing is rounded before the share: with n cells and m pixels, pixel i
 * is at i·(n − 1) / (m − 1) where corners are aligned, else at ((2i + 1)·n − m) / 2m, but not below 0.
 */
import { requireWhole, type Shape, shapeError } from "../graph/shape.ts";

/** The size of resized maps, and how their pixels lie on the cells of a map. */
export interface Resizing {
  /** Pixels. */
  readonly height: number;
  /** Pixels. */
  readonly width: number;
  /**
   * Whether the centres of the outermost pixels lie on those of the outermost cells (PyTorch's `align_corners=True`), or
   * the edges of pixels and cells coincide.
   */
  readonly alignCorners: boolean;
}

/**
 * Throws a ShapeError unless `maps` are [N, h, w, C] and the size is of whole numbers from 1 on, few enough that places
 * fit 32 bits.
 */
export const requireResizing = (
  op: string,
  maps: Shape,
  { height, width }: Omit<Resizing, "alignCorners">,
) => {
  requireWhole(op, { height, width }, 1, maps);
  if (maps.length !== 4) shapeError(op, "maps [N, h, w, C]", maps);
  const fits = (pixels: number, cells: number) => (2 * pixels + 1) * (2 * cells + 1) < 2 ** 32;
  if (!fits(height, maps[1]) || !fits(width, maps[2])) {
    shapeError(op, `sizes whose products are below 2^30, not a map of ${height} × ${width}`, maps);
  }
};

/**
 * WGSL: `between` gives the two cells that a pixel lies between, and its way from the lower to the higher one as a
 * fraction; `firstAt` gives the first pixel whose lower cell is `cell` or a later one, and the number of pixels for
 * `cell` = `cells`; `shareOf` gives the fraction of a pixel whose lower cell is known.
 */
export const bilinearFunctions = (alignCorners: boolean): string => /* wgsl */ `
struct Between { low: u32, high: u32, share: f32 }
${alignCorners ? ALIGNED : CENTRED}
fn between(pixel: u32, pixels: u32, cells: u32) -> Between {
  let low = placeOf(pixel, pixels, cells) / unitOf(pixels);
  return Between(low, min(low + 1u, cells - 1u), shareOf(pixel, low, pixels, cells));
}
fn shareOf(pixel: u32, low: u32, pixels: u32, cells: u32) -> f32 {
  return f32(placeOf(pixel, pixels, cells) - low * unitOf(pixels)) / f32(unitOf(pixels));
}`;

// The place of a pixel is placeOf / unitOf.
const ALIGNED = /* wgsl */ `
fn unitOf(pixels: u32) -> u32 { return max(pixels - 1u, 1u); }
fn placeOf(pixel: u32, pixels: u32, cells: u32) -> u32 { return pixel * (cells - 1u); }
fn firstAt(cell: u32, pixels: u32, cells: u32) -> u32 {
  if (cell == 0u) { return 0u; }
  if (cell >= cells) { return pixels; }
  return min((cell * unitOf(pixels) + cells - 2u) / (cells - 1u), pixels);
}`;

const CENTRED = /* wgsl */ `
fn unitOf(pixels: u32) -> u32 { return 2u * pixels; }
fn placeOf(pixel: u32, pixels: u32, cells: u32) -> u32 { return max((2u * pixel + 1u) * cells, pixels) - pixels; }
fn firstAt(cell: u32, pixels: u32, cells: u32) -> u32 {
  if (cell == 0u) { return 0u; }
  if (cell >= cells) { return pixels; }
  // The least i with (2i + 1) · cells ≥ (2 · cell + 1) · pixels
  return min((max((2u * cell + 1u) * pixels, cells) - cells + 2u * cells - 1u) / (2u * cells), pixels);
}`;
