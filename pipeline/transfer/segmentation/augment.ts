/** Augmentation of an image and its labels: resize, crop, flip, distort. Only the crop is ever resized. */
import { distort } from "../../../data/images/distort.ts";
import type { Picture } from "../../../data/images/picture.ts";
import type { Box } from "../../../data/images/resample.ts";
import { resizeBilinear, resizeNearest, type Size } from "../../../data/images/resize.ts";
import type { Random } from "../../../data/random/random.ts";
import {
  type AugmentationOptions,
  chooseBox,
  drawBox,
  drawDistortions,
  drawFlip,
  type DrawnDistortion,
  isAccepted,
  resizedSize,
  scaledLimits,
} from "./draws.ts";

/** An image and the class of each of its pixels. */
export interface LabelledImage {
  /** The image, [H, W]. */
  readonly picture: Picture;
  /** Classes, or `IGNORED`, [H, W]. */
  readonly labels: Uint8Array<ArrayBuffer>;
}

/** How an image is augmented. */
export interface Augmentation {
  /** The size that the whole image is resized to. */
  readonly size: Size;
  /** The box that is kept of that. */
  readonly box: Box;
  /** Whether it is flipped left to right. */
  readonly flip: boolean;
  /** Its changes of colour, in their order. */
  readonly distortions: readonly DrawnDistortion[];
}

/** Draws how to augment an image; which box is kept may depend on its labels. */
export const drawAugmentation = (
  random: Random,
  { picture, labels }: LabelledImage,
  options: AugmentationOptions,
): Augmentation => {
  const { minRatio, maxRatio, cropSize, maxClassShare, colorDistortion } = options;
  const size = resizedSize(picture, scaledLimits(options, random.uniform(minRatio, maxRatio)));
  const crop = { width: cropSize, height: cropSize };
  const box = maxClassShare < 1
    ? chooseBox(
      () => drawBox(random, size, crop),
      (box) => isAccepted(resizeNearest(labels, picture, size, box), maxClassShare),
    )
    : drawBox(random, size, crop);
  const flip = drawFlip(random, options.flip);
  return { size, box, flip, distortions: colorDistortion ? drawDistortions(random) : [] };
};

/** Augments an image and its labels. */
export const augmented = (
  { picture, labels }: LabelledImage,
  { size, box, flip, distortions }: Augmentation,
): LabelledImage => {
  const crop: LabelledImage = {
    picture: resizeBilinear(picture, size, box),
    labels: resizeNearest(labels, picture, size, box),
  };
  if (flip) flipImage(crop);
  for (const [distortion, value] of distortions) {
    if (value !== null) distort(crop.picture, distortion, value);
  }
  return crop;
};

/** Flips an image and its labels left to right, in place. */
export const flipImage = ({ picture: { rgb, width, height }, labels }: LabelledImage): void => {
  for (let y = 0; y < height; y++) {
    const row = y * width;
    labels.subarray(row, row + width).reverse();
    for (let left = 3 * row, right = 3 * (row + width - 1); left < right; left += 3, right -= 3) {
      for (let c = 0; c < 3; c++) {
        const byte = rgb[left + c];
        rgb[left + c] = rgb[right + c];
        rgb[right + c] = byte;
      }
    }
  }
};
