import type { Picture } from "../../data/images/decode_image.ts";
import type { Color } from "./colors.ts";

const TINT = 0.4; // share of the colour in the region, as in the published figure
const DIM = 0.55; // brightness that the rest keeps
const GRAY = 0.6; // how much of its colour the rest loses

/** A picture with the region that one prototype wins tinted, and the rest dimmed. `segments` [H, W]. */
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
