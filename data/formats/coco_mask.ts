/**
 * COCO's masks in all forms that its files have, as pycocotools reads them, to the pixel: polygons, run lengths, and
 * run lengths that are packed into a string.
 *
 * Time and memory grow with the bytes of a segmentation and the sides of its image, not with what its numbers claim.
 *
 * Source: `coco.py`, `_mask.pyx` and `maskApi.c` of pycocotools.
 */
import { Result } from "effect";
import { isObject, shown } from "../files/format_error.ts";

/**
 * A mask as its runs of 1 down the columns, from the top left: begin and end of each, one after the other, ascending.
 * Pixel (x, y) has the place x · height + y.
 */
export type Spans = Float64Array;

/** The image of a mask. */
export interface MaskPicture {
  readonly width: number;
  readonly height: number;
  readonly name?: string; // for what is said of it
}

/** The values of `segmentation`. Polygons are lists of x, y, x, y, … in pixels; a pixel's centre is at .5. */
export type Segmentation = readonly (readonly number[])[] | RunLengths | readonly RunLengths[];

interface RunLengths {
  readonly size: readonly number[]; // height, width
  readonly counts: readonly number[] | string;
}

/** The spans of a segmentation in an image of this size, or what is wrong with it. */
export const segmentationSpans = (segmentation: unknown, size: MaskPicture): Result.Result<Spans, string> => {
  try {
    return Result.succeed(spansOf(segmentation, size));
  } catch (error) {
    if (error instanceof MaskProblem) return Result.fail(error.message);
    throw error;
  }
};

/** A segmentation as a mask [H, W] of 0 and 1. Null where it is none of an image of this size. */
export const segmentationMask = (segmentation: Segmentation, size: MaskPicture): Uint8Array | null => {
  const spans = segmentationSpans(segmentation, size);
  if (Result.isFailure(spans)) return null;
  const mask = new Uint8Array(size.width * size.height);
  fillSpans(spans.success, size, mask, 1);
  return mask;
};

/** How many pixels a mask has. */
export const spansArea = (spans: Spans): number => {
  let area = 0;
  for (let i = 0; i < spans.length; i += 2) area += spans[i + 1] - spans[i];
  return area;
};

/** Writes a value into the pixels [H, W] of a mask. */
export const fillSpans = (
  spans: Spans,
  { width, height }: MaskPicture,
  pixels: Uint8Array | Uint16Array,
  value: number,
): void => {
  for (let i = 0; i < spans.length; i += 2) {
    let x = Math.floor(spans[i] / height);
    let y = spans[i] - x * height;
    for (let left = spans[i + 1] - spans[i]; left > 0; x++, y = 0) {
      const end = Math.min(height, y + left);
      left -= end - y;
      for (let at = y * width + x; y < end; y++, at += width) pixels[at] = value;
    }
  }
};

class MaskProblem extends Error {}

const refuse = (problem: string): never => {
  throw new MaskProblem(problem);
};

const NO_SEGMENTATION = "its segmentation is neither polygons nor run lengths";

const spansOf = (segmentation: unknown, size: MaskPicture): Spans => {
  if (!Array.isArray(segmentation)) return runSpans(segmentation, size);
  const [first] = segmentation;
  if (!Array.isArray(first)) return union(segmentation.map((part) => runSpans(part, size)));
  // As in pycocotools, the first part decides: others may be too small to cover anything.
  if (first.length < 5) {
    return refuse(`its segmentation has a polygon of ${first.length} numbers, three corners have 6`);
  }
  return union(
    segmentation.map((part) => Array.isArray(part) ? polygonSpans(part, size) : refuse(NO_SEGMENTATION)),
  );
};

/** All that is in one of several masks. */
const union = (masks: readonly Spans[]): Spans => {
  if (masks.length === 1) return masks[0];
  const count = masks.reduce((sum, mask) => sum + mask.length / 2, 0);
  const begins = new Float64Array(count), ends = new Float64Array(count);
  let filled = 0;
  for (const mask of masks) {
    for (let i = 0; i < mask.length; i += 2) [begins[filled], ends[filled++]] = [mask[i], mask[i + 1]];
  }
  begins.sort();
  ends.sort();
  const joined: number[] = [];
  let open = 0; // spans that have begun and not ended
  for (let b = 0, e = 0; e < count;) {
    if (b < count && begins[b] <= ends[e]) {
      if (open++ === 0) joined.push(begins[b]);
      b++;
    } else {
      if (--open === 0) joined.push(ends[e]);
      e++;
    }
  }
  return Float64Array.from(joined);
};

// --- Run lengths ---

/** Alternating runs of 0 and 1, beginning with 0, which cover the image. */
const runSpans = (runs: unknown, { width, height, name }: MaskPicture): Spans => {
  const { size, counts: written } = isObject(runs) ? runs as Partial<RunLengths> : {};
  if (!Array.isArray(size) || !(Array.isArray(written) || typeof written === "string")) {
    return refuse(NO_SEGMENTATION);
  }
  const counts: readonly unknown[] = typeof written === "string" ? unpackedCounts(written) : written;
  const ends: number[] = [];
  let place = 0, sound = size[0] === height && size[1] === width;
  for (const [i, run] of counts.entries()) {
    sound &&= Number.isSafeInteger(run) && (run as number) >= 0;
    const from = place;
    place += run as number;
    if (i % 2 === 1 && place > from) ends.push(from, place);
  }
  if (!sound || place !== width * height) {
    const others = size[0] === height && size[1] === width
      ? ""
      : `: they are of ${shown(size[1])} x ${shown(size[0])}`;
    const of = name === undefined ? "the picture" : shown(name);
    return refuse(`run lengths of ${of} do not cover ${width} x ${height} pixels${others}`);
  }
  return Float64Array.from(ends);
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
      if (!(piece >= 0 && piece < 64) || shift > 25) {
        return refuse("the string of its run lengths is damaged");
      }
      value |= (piece & 0x1f) << shift;
      shift += 5;
    } while ((piece & 0x20) !== 0);
    if ((piece & 0x10) !== 0) value |= -1 << shift; // negative
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
};

// --- Polygons ---

/** The outline is drawn on a grid this many times as fine as the pixels. */
const FINE = 5;
/** Beyond it the grid's numbers leave 32 bits, and pycocotools draws something else. */
const FARTHEST = Math.floor(2 ** 30 / FINE);
/** Where an outline crosses a column of pixels; a photograph's largest outlines do so some ten thousand times. */
const MOST_CROSSINGS = 2 ** 24;

/**
 * A filled polygon, by the rule of COCO's tools: its outline is drawn on the fine grid, point after point, and wherever
 * it crosses the middle of a column of pixels, the column changes between inside and outside. Only the crossings inside
 * of the image are looked for: lines may be far longer.
 */
const polygonSpans = (polygon: readonly unknown[], { width, height }: MaskPicture): Spans => {
  const fine = polygon.map((value) => {
    if (typeof value !== "number") return refuse("its segmentation has a corner that is no number");
    if (Math.abs(value) > FARTHEST) {
      return refuse(`its segmentation has a corner at ${value}, at most ${FARTHEST} is read`);
    }
    return Math.trunc(FINE * value + 0.5);
  });
  const corners = fine.length >> 1;
  const changes: number[] = [];
  const cross = (column: number, fineY: number) => {
    if (changes.length === MOST_CROSSINGS) {
      refuse("its outline crosses more columns than that of any photograph");
    }
    const y = Math.ceil(Math.min(Math.max((fineY + 0.5) / FINE - 0.5, 0), height));
    changes.push(column * height + y);
  };
  for (let i = 0; i < corners; i++) {
    const next = (i + 1) % corners;
    crossings([fine[2 * i], fine[2 * i + 1]], [fine[2 * next], fine[2 * next + 1]], width, cross);
  }
  if (changes.length % 2 === 1) changes.push(width * height);
  const sorted = Float64Array.from(changes).sort();
  const spans: number[] = [];
  for (let i = 0; i < sorted.length; i += 2) {
    if (sorted[i] < sorted[i + 1]) spans.push(sorted[i], sorted[i + 1]);
  }
  return Float64Array.from(spans);
};

type Point = readonly [number, number];

/**
 * Where a line crosses the middles of columns: between the grid's x of 5c + 2 and 5c + 3. The line has a point for each
 * step along its longer axis, and counts as crossing at the higher of the two points around the middle.
 */
const crossings = (
  [x0, y0]: Point,
  [x1, y1]: Point,
  width: number,
  cross: (column: number, fineY: number) => void,
): void => {
  const [dx, dy] = [Math.abs(x1 - x0), Math.abs(y1 - y0)];
  const isFlat = dx >= dy;
  // Always drawn in the direction of the growing coordinate, so that an edge looks the same from both of its sides.
  const backwards = isFlat ? x0 > x1 : y0 > y1;
  const [ax, ay, bx, by] = backwards ? [x1, y1, x0, y0] : [x0, y0, x1, y1];
  const slope = dx + dy === 0 ? 0 : isFlat ? (by - ay) / dx : (bx - ax) / dy;
  const across = (t: number) => isFlat ? ax + t : Math.trunc(ax + slope * t + 0.5);
  const down = (t: number) => isFlat ? Math.trunc(ay + slope * t + 0.5) : ay + t;
  const steps = Math.max(dx, dy);
  const [left, right] = [across(0), across(steps)].sort((a, b) => a - b);
  const first = Math.max(0, Math.ceil((left - 2) / FINE));
  const last = Math.min(width - 1, Math.floor((right - 3) / FINE));
  for (let column = first; column <= last; column++) {
    const middle = FINE * column + 2;
    const t = isFlat
      ? middle - ax
      : firstStep(steps, (t) => slope > 0 ? across(t) > middle : across(t) <= middle) - 1;
    cross(column, Math.min(down(t), down(t + 1)));
  }
};

/** The first of the steps 0 … last for which a condition holds that holds for all after it, and for the last. */
const firstStep = (last: number, holds: (step: number) => boolean): number => {
  let [low, high] = [0, last];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
};
