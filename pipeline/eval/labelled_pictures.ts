import { Effect } from "effect";
import { basename, join } from "node:path";
import { type Picture, readPicture } from "../../data/decode_image.ts";
import { listImages } from "../../data/image_list.ts";

export interface LabelledPicture {
  readonly picture: Picture;
  readonly labels: Uint8Array; // [H, W], class of each pixel
}

/**
 * The pictures of COCO's val2017 with the class of every pixel, from `annotations/stuff_val2017_pixelmaps`. Fails with ImageListError or DecodeError.
 */
export const labelledPictures = Effect.fn("labelledPictures")(function* (dataDir: string) {
  const files = yield* listImages({ dataset: "COCOval", dataDir });
  return yield* Effect.forEach(files, (file) =>
    Effect.gen(function* () {
      const map = `${basename(file, ".jpg")}.png`;
      const { rgb } = yield* readPicture(join(dataDir, "annotations", "stuff_val2017_pixelmaps", map));
      const labels = rgb.filter((_, i) => i % 3 === 0); // grey: all channels are the same
      return { picture: yield* readPicture(file), labels } satisfies LabelledPicture as LabelledPicture;
    }));
});
