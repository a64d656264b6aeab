/** The augmentation stage: packed images to the two views that the network sees (docs/method.md, section 8). */
import { WEIGHT_BITS } from "../../data/images/resample.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";
import type { AugmentationRowSize } from "../../ops/image/augmentation_row.ts";
import { colorJitter } from "../../ops/image/color_jitter.ts";
import { cropResize } from "../../ops/image/crop_resize.ts";
import { gaussianBlur } from "../../ops/image/gaussian_blur.ts";
import { normalizePixels } from "../../ops/image/normalize_pixels.ts";
import { solarize } from "../../ops/image/solarize.ts";
import { IMAGENET } from "../model/resnet.ts";

/**
 * Packed images (u32, four bytes a word) and the parameters of their views (u32 [2B, words a row], see `packBatch`) to
 * normalised views: f32 [2B, S, S, 3], all first views before all second ones.
 */
export const augment = (pixels: Tensor, views: Tensor, size: AugmentationRowSize): Tensor =>
  normalizePixels(augmentedImages(pixels, views, size), IMAGENET);

/** The same before normalisation: 8-bit images, u32 [2B, S, S], r | g << 8 | b << 16. */
export const augmentedImages = (pixels: Tensor, views: Tensor, size: AugmentationRowSize): Tensor => {
  const cropped = cropResize(pixels, views, { ...size, weightBits: WEIGHT_BITS });
  const coloured = colorJitter(cropped, views);
  const blurred = gaussianBlur(coloured, views);
  return solarize(blurred, views);
};

/**
 * How views of `imageSize` pixels a side are packed: the taps that a resampling on the device may have, and `capacity`,
 * the bytes of images that are uploaded with a batch, at most `maxBinding`. An image that needs more is resampled on the
 * host, with the same result.
 */
export const packingFor = (
  imageSize: number,
  batchSize: number,
  maxBinding: number,
): AugmentationRowSize & { capacity: number } => {
  // Enough for boxes of up to 896 pixels.
  const maxTaps = Math.min(64, Math.max(8, Math.ceil(4 * 896 / imageSize)));
  const finished = 2 * (3 * imageSize * imageSize + 4);
  // COCO's images have 0.9 MB, and only the rows that a view uses are uploaded.
  const capacity = Math.max(finished, Math.min(2 ** 20, Math.floor(maxBinding / batchSize))) * batchSize;
  return { imageSize, maxTaps, capacity: Math.ceil(capacity / 4) * 4 };
};
