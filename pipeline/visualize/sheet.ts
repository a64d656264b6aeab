/** Sheets of images of one size. */
import type { Effect } from "effect";
import type { Picture } from "../../data/images/decode_image.ts";
import { Paper } from "./paper.ts";

/** Pixels between images, and around them. */
const GAP = 6;

/** Rows of images of one size on a white sheet, enlarged by the integer factor `zoom`, as the bytes of a PNG file. */
export const sheet = (rows: readonly (readonly Picture[])[], zoom = 2): Effect.Effect<Uint8Array> => {
  const [{ width, height }] = rows[0];
  const [stepX, stepY] = [zoom * width + GAP, zoom * height + GAP];
  const columns = Math.max(...rows.map((row) => row.length));
  const paper = new Paper(GAP + columns * stepX, GAP + rows.length * stepY);
  rows.forEach((row, y) =>
    row.forEach((image, x) => paper.put(enlarged(image, zoom), GAP + x * stepX, GAP + y * stepY))
  );
  return paper.encode("png");
};

/** Every pixel as a square of `zoom` × `zoom`. */
const enlarged = ({ width, height, rgb }: Picture, zoom: number): Picture => {
  const wide = zoom * width, high = zoom * height;
  const result = new Uint8Array(3 * wide * high);
  for (let i = 0; i < wide * high; i++) {
    const from = 3 * (Math.floor(i / wide / zoom) * width + Math.floor(i % wide / zoom));
    result.set(rgb.subarray(from, from + 3), 3 * i);
  }
  return { width: wide, height: high, rgb: result };
};
