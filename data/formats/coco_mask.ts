/**
 * COCO's masks in all forms that its files have: run lengths, the same packed into a string, and polygons, filled to the
 * pixel as COCO's own tools fill them.
 */
import { Schema } from "effect";
import { maskOf, RunLengths } from "./coco.ts";

/** What stands in `segmentation`. Polygons are lists of x, y, x, y, … in pixels; a pixel's centre is at .5. */
export const Segmentation = Schema.Union([
  Schema.Array(Schema.Array(Schema.Finite)),
  RunLengths,
  Schema.Struct({ size: RunLengths.fields.size, counts: Schema.String }),
]);
export type Segmentation = typeof Segmentation.Type;

/** A segmentation as a mask [H, W] of 0 and 1. Null where its run lengths are not those of a picture of this size. */
export const segmentationMask = (
  segmentation: Segmentation,
  { width, height }: { readonly width: number; readonly height: number },
): Uint8Array | null => {
  if (!("counts" in segmentation)) {
    const mask = new Uint8Array(width * height);
    for (const polygon of segmentation) {
      maskOf({ size: [height, width], counts: polygonRuns(polygon, width, height) })
        .forEach((value, i) => mask[i] |= value);
    }
    return mask;
  }
  const { size, counts: written } = segmentation;
  const counts = typeof written === "string" ? unpackedCounts(written) : written;
  const covered = counts.reduce((sum, run) => sum + run, 0);
  const fits = size[0] === height && size[1] === width && covered === width * height;
  return fits && counts.every((run) => run >= 0) ? maskOf({ size, counts }) : null;
};

/**
 * Run lengths from their string: numbers in pieces of five bits, lowest first, a sixth bit says that more follow, 48 is
 * added to make characters. From the fourth run on, what is written is the difference to the run two before.
 */
const unpackedCounts = (text: string): number[] => {
  const counts: number[] = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, piece: number;
    do {
      piece = text.charCodeAt(at++) - 48;
      value |= (piece & 0x1f) << shift;
      shift += 5;
    } while ((piece & 0x20) !== 0);
    if ((piece & 0x10) !== 0) value |= -1 << shift; // negative
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
};

/**
 * Run lengths of a filled polygon, by the rule of COCO's tools: its outline is drawn on a grid five times as fine, and
 * wherever it crosses the middle of a column of pixels, the column changes between inside and outside.
 */
const polygonRuns = (polygon: readonly number[], width: number, height: number): number[] => {
  const corners = polygon.length >> 1;
  const fine = (value: number) => Math.trunc(FINE * value + 0.5);
  const outline: (readonly [number, number])[] = [];
  for (let i = 0; i < corners; i++) {
    const next = (i + 1) % corners;
    outline.push(...line(
      [fine(polygon[2 * i]), fine(polygon[2 * i + 1])],
      [fine(polygon[2 * next]), fine(polygon[2 * next + 1])],
    ));
  }

  const changes: number[] = [width * height];
  for (let i = 1; i < outline.length; i++) {
    const [[fromX, fromY], [toX, toY]] = [outline[i - 1], outline[i]];
    if (fromX === toX) continue;
    const x = (Math.min(fromX, toX) + 0.5) / FINE - 0.5;
    if (!Number.isInteger(x) || x < 0 || x > width - 1) continue;
    const y = Math.ceil(Math.min(Math.max((Math.min(fromY, toY) + 0.5) / FINE - 0.5, 0), height));
    changes.push(x * height + y);
  }
  changes.sort((a, b) => a - b);

  const counts: number[] = [];
  let from = 0;
  for (let i = 0; i < changes.length; from = changes[i++]) {
    if (i > 0 && changes[i] === from) { // two changes at one place cancel out: the run before goes on
      if (++i < changes.length) counts[counts.length - 1] += changes[i] - from;
    } else counts.push(changes[i] - from);
  }
  return counts;
};

const FINE = 5;

/** The grid points of a line, both ends included, one for each step along its longer axis. */
const line = ([x0, y0]: readonly [number, number], [x1, y1]: readonly [number, number]) => {
  const [dx, dy] = [Math.abs(x1 - x0), Math.abs(y1 - y0)];
  const steps = Math.max(dx, dy);
  // Always drawn in the direction of the growing coordinate, so that an edge looks the same from both of its sides.
  const backwards = dx >= dy ? x0 > x1 : y0 > y1;
  const [ax, ay, bx, by] = backwards ? [x1, y1, x0, y0] : [x0, y0, x1, y1];
  const slope = steps === 0 ? 0 : dx >= dy ? (by - ay) / dx : (bx - ax) / dy;
  const points = Array.from(
    { length: steps + 1 },
    (_, t) =>
      dx >= dy
        ? [ax + t, Math.trunc(ay + slope * t + 0.5)] as const
        : [Math.trunc(ax + slope * t + 0.5), ay + t] as const,
  );
  return backwards ? points.reverse() : points;
};
