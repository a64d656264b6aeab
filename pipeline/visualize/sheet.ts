import { Effect } from "effect";
import sharp from "sharp";
import type { Picture } from "../../data/decode_image.ts";

const GAP = 6; // pixels between pictures, and around them

/** Rows of pictures of one size on a white sheet, `zoom` times as large (a whole number), as a PNG file. */
export const sheet = (rows: readonly (readonly Picture[])[], zoom = 2): Effect.Effect<Uint8Array> => {
  const [{ width, height }] = rows[0];
  const [stepX, stepY] = [zoom * width + GAP, zoom * height + GAP];
  const columns = Math.max(...rows.map((row) => row.length));
  return Effect.promise(async () => {
    const tiles = rows.flatMap((row, y) =>
      row.map(async ({ rgb }, x) => ({
        input: await sharp(rgb, { raw: { width, height, channels: 3 } })
          .resize(zoom * width, zoom * height, { kernel: "nearest" }).png().toBuffer(),
        left: GAP + x * stepX,
        top: GAP + y * stepY,
      }))
    );
    const paper = {
      width: GAP + columns * stepX,
      height: GAP + rows.length * stepY,
      channels: 3,
      background: "white",
    } as const;
    return await sharp({ create: paper }).composite(await Promise.all(tiles)).png().toBuffer();
  });
};
