/** Images as the device takes them: a word a pixel, r | g << 8 | b << 16. */
import type { Picture } from "../../data/images/decode_image.ts";

/** Packs the pixels of an image into `into`, [H, W]. */
export const pack = ({ rgb }: Picture, into: Uint32Array): void => {
  for (let i = 0, at = 0; at < into.length; i += 3) into[at++] = rgb[i] | rgb[i + 1] << 8 | rgb[i + 2] << 16;
};

/** The image of such words, [H, width]. */
export const unpack = (words: Uint32Array, width: number): Picture => {
  const rgb = new Uint8Array(3 * words.length);
  for (let i = 0, at = 0; at < words.length; i += 3) {
    const word = words[at++];
    rgb[i] = word & 255;
    rgb[i + 1] = word >> 8 & 255;
    rgb[i + 2] = word >> 16 & 255;
  }
  return { width, height: words.length / width, rgb };
};
