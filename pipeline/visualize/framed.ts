import { Effect } from "effect";
import sharp from "sharp";
import type { Picture } from "../../data/decode_image.ts";

/** How whole pictures are shown to a network that takes squares: published evaluations resize to 256 and crop 224. */
export interface Frame {
  readonly resize: number; // pixels of the shorter side
  readonly crop: number; // side of the square that is kept of the middle
}

/** A picture resized (linear filter, antialiased) and cropped; one that has the size already is left as it is. */
export const framed = ({ width, height, rgb }: Picture, { resize, crop }: Frame): Effect.Effect<Picture> => {
  if (width === crop && height === crop && resize === crop) return Effect.succeed({ width, height, rgb });
  const scale = resize / Math.min(width, height);
  const [wide, high] = [Math.trunc(width * scale + 1e-6), Math.trunc(height * scale + 1e-6)];
  return Effect.promise(async () => ({
    width: crop,
    height: crop,
    rgb: await sharp(rgb, { raw: { width, height, channels: 3 } })
      .resize(wide, high, { fit: "fill", kernel: "linear" })
      .extract({
        left: Math.round((wide - crop) / 2),
        top: Math.round((high - crop) / 2),
        width: crop,
        height: crop,
      })
      .raw().toBuffer(),
  }));
};
