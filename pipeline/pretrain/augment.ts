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
 * Packed pictures and their view table (data/view_table.ts) to what the network sees: f32 [2B, S, S, 3], all first
 * views before all second ones.
 */
export const augment = (pixels: Tensor, views: Tensor, size: AugmentationRowSize): Tensor =>
  normalizePixels(augmentedPictures(pixels, views, size), IMAGENET);

/** The same before normalisation: pictures of 8 bits, u32 [2B, S, S], r | g << 8 | b << 16. */
export const augmentedPictures = (pixels: Tensor, views: Tensor, size: AugmentationRowSize): Tensor => {
  const cropped = cropResize(pixels, views, { ...size, weightBits: WEIGHT_BITS });
  const coloured = colorJitter(cropped, views);
  const blurred = gaussianBlur(coloured, views);
  return solarize(blurred, views);
};

/**
 * How views of this side are packed: how many taps a resampling may have, and how many bytes of pictures go to the
 * device with a batch. Pictures that need more are finished on the host, with the same result.
 */
export const packingFor = (
  imageSize: number,
  batchSize: number,
  maxBinding: number,
): AugmentationRowSize & { capacity: number } => {
  // Boxes of up to 896 pixels are reduced on the device.
  const maxTaps = Math.min(64, Math.max(8, Math.ceil(4 * 896 / imageSize)));
  const finished = 2 * (3 * imageSize * imageSize + 4);
  // COCO's pictures are 0.9 MB and more rows than a view uses are not sent.
  const capacity = Math.max(finished, Math.min(2 ** 20, Math.floor(maxBinding / batchSize))) * batchSize;
  return { imageSize, maxTaps, capacity: Math.ceil(capacity / 4) * 4 };
};
