/** Images with the region of one prototype. */
import type { Picture } from "../../data/images/decode_image.ts";
import type { Color } from "./colors.ts";

/** Share of the prototype's colour in its region, as in the published figure. */
const TINT = 0.4;
/** Share of its brightness that the rest keeps, and share of its colour that the rest loses. */
const DIM = 0.55;
const GRAY = 0.6;

/**
 * An image with the pixels of one prototype tinted and the others dimmed. `segments` [H, W] are numbers of prototypes.
 */
export const highlighted = (
  { width, height, rgb }: Picture,
  segments: ArrayLike<number>,
  prototype: number,
  color: Color,
): Picture => {
  const result = new Uint8Array(rgb.length);
  for (let i = 0; i < width * height; i++) {
    const gray = 0.299 * rgb[3 * i] + 0.587 * rgb[3 * i + 1] + 0.114 * rgb[3 * i + 2];
    for (let c = 0; c < 3; c++) {
      const value = rgb[3 * i + c];
      result[3 * i + c] = Math.round(
        segments[i] === prototype
          ? (1 - TINT) * value + TINT * color[c]
          : DIM * ((1 - GRAY) * value + GRAY * gray),
      );
    }
  }
  return { width, height, rgb: result };
};
