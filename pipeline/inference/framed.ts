import type { Picture } from "../../data/images/decode_image.ts";
import { resizeCrop } from "../../data/images/resample.ts";

/** How whole pictures are shown to a network that takes squares: published evaluations resize to 256 and crop 224. */
export interface Frame {
  readonly resize: number; // pixels of the shorter side
  readonly crop: number; // side of the square that is kept of the middle, at most as long
}

/** The frame of published evaluations for a network that was trained on views of `imageSize`. */
export const evaluationFrame = (imageSize: number): Frame => ({
  resize: Math.round(imageSize * 256 / 224),
  crop: imageSize,
});

/**
 * A picture resized (bilinear, antialiased) and cropped, bit for bit as torchvision's `Resize` and `CenterCrop` do it to
 * Pillow's pictures; one that has the size already is left as it is.
 */
export const framed = (picture: Picture, frame: Frame): Picture => {
  const { resize, crop } = frame;
  if (picture.width === crop && picture.height === crop && resize === crop) return picture;
  const { size, top, left } = placed(picture, frame);
  return resizeCrop(picture, size, [top, left, crop, crop]);
};

interface Size {
  readonly width: number;
  readonly height: number;
}

/** The size that a picture is resized to, and where the crop begins in it. */
export const placed = ({ width, height }: Size, { resize, crop }: Frame) => {
  const longer = Math.trunc(resize * Math.max(width, height) / Math.min(width, height));
  const size: Size = width <= height ? { width: resize, height: longer } : { width: longer, height: resize };
  return {
    size,
    top: roundHalfEven((size.height - crop) / 2),
    left: roundHalfEven((size.width - crop) / 2),
  };
};

/** As Python rounds: a middle is cut one pixel further to the left where both are as close. */
const roundHalfEven = (value: number): number => {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + below % 2 : Math.round(value);
};
