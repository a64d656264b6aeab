/** A decoded image, 8 bits a channel. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array; // [H, W, 3]
}

/** A reason not to decode an image, thrown where the name of its file is not known. */
export class Refusal extends Error {}

/** Pillow's own limit: half a gigabyte of RGB. A file of a few kilobytes can claim far more. */
export const MOST_PIXELS = 178_956_970;

/** Throws a `Refusal` where an image claims no pixels or too many. */
export const expectSize = (width: number, height: number): void => {
  if (!(width >= 1 && height >= 1)) throw new Refusal(`it claims ${width} x ${height} pixels`);
  if (width * height > MOST_PIXELS) {
    throw new Refusal(`it claims ${width} x ${height} pixels, at most ${MOST_PIXELS} are allowed`);
  }
};
