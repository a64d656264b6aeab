/** Small sets of labelled images, all in memory. */
import { Effect } from "effect";
import type { LabelError } from "../../data/datasets/coco_annotations.ts";
import { openLabels } from "../../data/datasets/coco_labels.ts";
import { type DecodeError, type Picture, readPicture } from "../../data/images/decode_image.ts";
import { foregroundRandIndex } from "./adjusted_rand.ts";
import { type Counts, type GroupingScore, scoreGrouping } from "./grouping.ts";

/** An image and its labels. */
export interface LabelledPicture {
  /** The image. */
  readonly picture: Picture;
  /** The class of each pixel, 0 where it is unknown, [H, W]. */
  readonly labels: Uint16Array;
  /** The object of each pixel, from 1, 0 elsewhere, [H, W]. */
  readonly objects: Uint16Array;
}

/**
 * The images of COCO's val2017 below `dataDir`, all at once, with their labels. Fails with LabelError or DecodeError.
 */
export const labelledPictures: (
  dataDir: string,
) => Effect.Effect<LabelledPicture[], LabelError | DecodeError> = Effect.fn("labelledPictures")(
  function* (dataDir) {
    const { pictures } = yield* openLabels({
      dataDir,
      split: "val",
      kind: null,
      coarse: false,
      objects: true,
    });
    return yield* Effect.forEach(pictures, ({ file, read }) =>
      Effect.gen(function* () {
        const picture = yield* readPicture(file);
        const { labels, objects } = yield* read(picture);
        return {
          picture,
          labels,
          objects: objects ?? new Uint16Array(labels.length),
        } satisfies LabelledPicture as LabelledPicture;
      }));
  },
);

/** The score of slots on labelled images. */
export interface PictureScore extends GroupingScore {
  /** Mean FG-ARI over the images with several objects; NaN if there are none. */
  readonly foregroundAri: number;
}

/** The score of slot maps [H, W], one for each image. */
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
