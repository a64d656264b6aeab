/** Pictures and the maps of their slots at other sizes, for the eye alone. */
import { Effect } from "effect";
import sharp from "sharp";
import type { Picture } from "../../data/images/decode_image.ts";

export interface Size {
  readonly width: number;
  readonly height: number;
}

export const scaled = (picture: Picture, { width, height }: Size): Effect.Effect<Picture> => {
  if (width === picture.width && height === picture.height) return Effect.succeed(picture);
  const raw = { width: picture.width, height: picture.height, channels: 3 } as const;
  return Effect.promise(async () => ({
    width,
    height,
    rgb: await sharp(picture.rgb, { raw }).resize(width, height, { fit: "fill", kernel: "mitchell" }).raw()
      .toBuffer(),
  }));
};

/** A map of numbers: each pixel takes that of the nearest one. */
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
