/** Images in the colours of their segments. */
import type { Picture } from "../../data/images/decode_image.ts";
import type { Color } from "./colors.ts";

/** Share of the segment's colour; the rest is the image's brightness. */
const TINT = 0.7;
/** Brightness of a segment's outermost pixels. */
const EDGE = 0.35;

/** An image with every segment in its colour and an outline around it. `segments` [H, W] are indices of `colors`. */
export const tinted = (
  { width, height, rgb }: Picture,
  segments: ArrayLike<number>,
  colors: readonly Color[],
): Picture => {
  const result = new Uint8Array(rgb.length);
  for (let i = 0; i < width * height; i++) {
    const [red, green, blue] = rgb.subarray(3 * i, 3 * i + 3);
    const brightness = 0.299 * red + 0.587 * green + 0.114 * blue;
    const isEdge = (i % width < width - 1 && segments[i] !== segments[i + 1]) ||
      (i + width < width * height && segments[i] !== segments[i + width]);
    for (let c = 0; c < 3; c++) {
      const value = TINT * colors[segments[i]][c] + (1 - TINT) * brightness;
      result[3 * i + c] = Math.round(isEdge ? EDGE * value : value);
    }
  }
  return { width, height, rgb: result };
};
