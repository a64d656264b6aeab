/** Whole images as squares for a network. */
import type { Picture } from "../../data/images/decode_image.ts";
import { resizeCrop } from "../../data/images/resample.ts";
import { roundHalfEven } from "../../data/images/round_half_even.ts";

/** How to make a square of a whole image, in pixels: published evaluations resize to 256 and crop to 224. */
export interface Frame {
  /** The length of the shorter side after resizing. */
  readonly resize: number;
  /** The side of the central square that is kept, at most `resize`. */
  readonly crop: number;
}

/** The frame of published evaluations, scaled to a network that was trained on views of side `imageSize`. */
export const evaluationFrame = (imageSize: number): Frame => ({
  resize: Math.round(imageSize * 256 / 224),
  crop: imageSize,
});

/**
 * An image resized (bilinear, antialiased) and cropped, bit for bit as torchvision's `Resize` and `CenterCrop` do it to
 * Pillow's images. An image that has the size already is returned as it is.
 */
export const framed = (image: Picture, frame: Frame): Picture => {
  const { resize, crop } = frame;
  if (image.width === crop && image.height === crop && resize === crop) return image;
  const { size, top, left } = placed(image, frame);
  return resizeCrop(image, size, [top, left, crop, crop]);
};

/** Width and height in pixels. */
interface Size {
  readonly width: number;
  readonly height: number;
}

/** The size to which an image is resized, and where the crop begins in it, in pixels. */
export const placed = (
  { width, height }: Size,
  { resize, crop }: Frame,
): { readonly size: Size; readonly top: number; readonly left: number } => {
  const longer = Math.trunc(resize * Math.max(width, height) / Math.min(width, height));
  const size: Size = width <= height ? { width: resize, height: longer } : { width: longer, height: resize };
  return {
    size,
    top: roundHalfEven((size.height - crop) / 2),
    left: roundHalfEven((size.width - crop) / 2),
  };
};
