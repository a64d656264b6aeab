/** Images and labels as the device takes them. */
import { IGNORED } from "../../../data/datasets/segmentation/label_source.ts";
import type { Picture } from "../../../data/images/picture.ts";
import type { LabelledImage } from "./augment.ts";

/** A batch of B crops of side S as the device takes it. */
export interface PackedBatch {
  /**
   * A word r | g << 8 | b << 16 | label << 24 a pixel, [B, S, S]. Right of and below a smaller crop the label is 255,
   * and the colour has no meaning: what is there after normalising is 0.
   */
  readonly pixels: Uint32Array<ArrayBuffer>;
  /** Height and width of each crop, [B, 2]. */
  readonly sizes: Uint32Array<ArrayBuffer>;
  /** What each channel before the classifier is multiplied by, [B, headChannels]; none without dropout. */
  readonly keptHead?: Float32Array<ArrayBuffer>;
  /** The same of the auxiliary head, [B, auxiliaryChannels]; none without that head or without dropout. */
  readonly keptAuxiliary?: Float32Array<ArrayBuffer>;
}

/** Packs an image and its labels into the upper left of `into`, `width` words a row, and pads them. */
export const packLabelled = ({ picture, labels }: LabelledImage, into: Uint32Array, width: number): void => {
  const { rgb } = picture;
  into.fill(IGNORED << 24);
  for (let y = 0, i = 0, at = 0; y < picture.height; y++) {
    for (let x = 0, to = y * width; x < picture.width; x++, i++, at += 3) {
      into[to++] = rgb[at] | rgb[at + 1] << 8 | rgb[at + 2] << 16 | labels[i] << 24;
    }
  }
};

/** The pixels of an image without labels, r | g << 8 | b << 16, [H, W]. */
export const packImage = ({ width, height, rgb }: Picture): Uint32Array<ArrayBuffer> => {
  const words = new Uint32Array(width * height);
  for (let i = 0, at = 0; i < words.length; i++, at += 3) {
    words[i] = rgb[at] | rgb[at + 1] << 8 | rgb[at + 2] << 16;
  }
  return words;
};
