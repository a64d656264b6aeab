import { Effect } from "effect";
import { openLabels } from "../../data/datasets/coco_labels.ts";
import { type Picture, readPicture } from "../../data/images/decode_image.ts";
import { foregroundRandIndex } from "./adjusted_rand.ts";
import { type Counts, type GroupingScore, scoreGrouping } from "./grouping.ts";

export interface LabelledPicture {
  readonly picture: Picture;
  readonly labels: Uint16Array; // [H, W], class of each pixel
  readonly objects: Uint16Array; // [H, W], 1 … for each object, 0 elsewhere
}

/** The pictures of COCO's val2017, all at once, with what is where in them. Fails with LabelError or DecodeError. */
export const labelledPictures = Effect.fn("labelledPictures")(function* (dataDir: string) {
  const { pictures } = yield* openLabels({ dataDir, split: "val", kind: null, coarse: false, objects: true });
  return yield* Effect.forEach(pictures, ({ file, read }) =>
    Effect.gen(function* () {
      const { labels, objects } = yield* read;
      return {
        picture: yield* readPicture(file),
        labels,
        objects: objects ?? new Uint16Array(labels.length),
      } satisfies LabelledPicture as LabelledPicture;
    }));
});

export interface PictureScore extends GroupingScore {
  /** How well slots tell the objects of a picture apart: a mean over the pictures with several; NaN if there are none. */
  readonly foregroundAri: number;
}

/** How well maps [H, W] of slots, one a picture, match what is in the pictures. */
export const scorePictures = (
  maps: readonly ArrayLike<number>[],
  pictures: readonly LabelledPicture[],
  counts: Counts,
): PictureScore => {
  const indices = pictures.flatMap(({ objects }, i) =>
    new Set(objects.filter((object) => object > 0)).size < 2 ? [] : [foregroundRandIndex(objects, maps[i])!]
  );
  return {
    ...scoreGrouping(pictures.map(({ labels }, i) => ({ labels, slots: maps[i] })), counts),
    foregroundAri: indices.reduce((sum, index) => sum + index, 0) / indices.length,
  };
};
