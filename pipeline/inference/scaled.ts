/** Images and the maps of their slots at other sizes, to be looked at. */
import { Effect } from "effect";
import sharp from "sharp";
import type { Picture } from "../../data/images/decode_image.ts";

/** A size in pixels. */
export interface Size {
  /** Pixels in a row. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
}

/** An image at another size, by a smooth filter (Mitchell); the proportions may change. */
export const scaled = (image: Picture, { width, height }: Size): Effect.Effect<Picture> => {
  if (width === image.width && height === image.height) return Effect.succeed(image);
  const raw = { width: image.width, height: image.height, channels: 3 } as const;
  return Effect.promise(async () => ({
    width,
    height,
    rgb: await sharp(image.rgb, { raw }).resize(width, height, { fit: "fill", kernel: "mitchell" }).raw()
      .toBuffer(),
  }));
};

/**
 * A map of numbers, `from.height` rows of `from.width`, at another size: each pixel has the number of the nearest one.
 */
export const scaledMap = (
  map: ArrayLike<number>,
  from: Size,
  { width, height }: Size,
): Uint16Array<ArrayBuffer> =>
  Uint16Array.from({ length: width * height }, (_, i) => {
    const x = Math.floor((i % width + 0.5) * from.width / width);
    const y = Math.floor((Math.floor(i / width) + 0.5) * from.height / height);
    return map[y * from.width + x];
  });
