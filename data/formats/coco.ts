/**
 * COCO's instance annotations: one JSON file a split, and masks as run lengths.
 *
 * Source: the data format that the COCO data set publishes. Masks are written in its uncompressed run-length form,
 * which its readers take for every kind of instance.
 */
import { Schema } from "effect";

/**
 * A mask, column by column from the top left: `counts` are the lengths of alternating runs of 0 and 1, beginning with
 * 0 (so the first may be 0). `size` is [height, width].
 */
export const RunLengths = Schema.Struct({
  size: Schema.Tuple([Schema.Int, Schema.Int]),
  counts: Schema.Array(Schema.Int),
});
export type RunLengths = typeof RunLengths.Type;

const Instance = Schema.Struct({
  id: Schema.Int,
  image_id: Schema.Int,
  category_id: Schema.Int,
  iscrowd: Schema.Literals([0, 1]),
  area: Schema.Finite, // in pixels of the mask
  bbox: Schema.Tuple([Schema.Finite, Schema.Finite, Schema.Finite, Schema.Finite]), // left, top, width, height
  segmentation: RunLengths,
});

/** The contents of an `instances_*.json`. */
export const CocoInstances = Schema.Struct({
  info: Schema.Struct({ description: Schema.String, version: Schema.String }),
  licenses: Schema.Array(Schema.Struct({ id: Schema.Int, name: Schema.String, url: Schema.String })),
  images: Schema.Array(Schema.Struct({
    id: Schema.Int,
    file_name: Schema.String,
    width: Schema.Int,
    height: Schema.Int,
    license: Schema.Int,
  })),
  annotations: Schema.Array(Instance),
  categories: Schema.Array(
    Schema.Struct({ id: Schema.Int, name: Schema.String, supercategory: Schema.String }),
  ),
});
export type CocoInstances = typeof CocoInstances.Type;

/** A mask [H, W] of 0 and 1 as COCO writes it: run lengths, area and box. An empty mask has a box of zeros. */
export const instanceMask = (mask: Uint8Array, width: number, height: number) => {
  const counts: number[] = [];
  let [current, run, area] = [0, 0, 0];
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      const value = mask[y * width + x];
      if (value !== current) {
        counts.push(run);
        [current, run] = [value, 0];
      }
      run++;
      if (value === 0) continue;
      area++;
      [left, top] = [Math.min(left, x), Math.min(top, y)];
      [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
    }
  }
  counts.push(run);
  const bbox: [number, number, number, number] = area
    ? [left, top, right - left, bottom - top]
    : [0, 0, 0, 0];
  return { area, bbox, segmentation: { size: [height, width], counts } satisfies RunLengths };
};

/** Run lengths back to a mask [H, W] of 0 and 1. */
export const maskOf = ({ size: [height, width], counts }: RunLengths): Uint8Array => {
  const mask = new Uint8Array(height * width);
  let place = 0; // counted down the columns
  counts.forEach((run, i) => {
    for (const end = place + run; place < end; place++) {
      mask[(place % height) * width + Math.floor(place / height)] = i % 2;
    }
  });
  return mask;
};
