/** A white sheet of images, drawn piece by piece: only the sheet itself takes memory. */
import { Effect } from "effect";
import sharp from "sharp";
import type { Picture } from "../../data/images/decode_image.ts";
import type { Color } from "./colors.ts";

/** The most pixels of a sheet; its cells become smaller so that it fits. */
export const MOST_PIXELS: number = 24e6;

/** The most pixels of a sheet whose cells are as small as they can be: what there is no room for is not on it. */
export const LARGEST_SHEET: number = 1e8;

/** A sheet of RGB pixels. */
export class Paper {
  readonly #rgb: Uint8Array;

  /** A white sheet of this size, in pixels. */
  constructor(readonly width: number, readonly height: number) {
    this.#rgb = new Uint8Array(3 * width * height).fill(255);
  }

  /** Puts an image with its upper left corner at x, y; pixels beyond the edges of the sheet are cut off. */
  put({ width, height, rgb }: Picture, x: number, y: number): void {
    const count = Math.min(width, this.width - x);
    for (let row = 0; row < Math.min(height, this.height - y); row++) {
      const from = 3 * row * width;
      this.#rgb.set(rgb.subarray(from, from + 3 * count), 3 * ((y + row) * this.width + x));
    }
  }

  /** The bytes of a file of the sheet. */
  encode(format: "png" | "jpeg"): Effect.Effect<Uint8Array> {
    return Effect.promise(() => {
      const image = sharp(this.#rgb, { raw: { width: this.width, height: this.height, channels: 3 } });
      return (format === "png" ? image.png() : image.jpeg({ quality: 90, chromaSubsampling: "4:4:4" }))
        .toBuffer();
    });
  }
}

/**
 * The label of a row: a dot in the prototype's colour, its number, and below it its share of all locations in per
 * cent. The digits are drawn as strokes, since a machine may have no fonts.
 */
export const label = (
  { number, share, color }: { readonly number: number; readonly share: number; readonly color: Color },
  size: { readonly width: number; readonly height: number },
): Effect.Effect<Picture> => {
  const high = size.height * 0.14, low = high * 0.62;
  const percent = 100 * share;
  const below = percent >= 10 || percent === 0
    ? percent.toFixed(0)
    : percent >= 0.1
    ? percent.toPrecision(2)
    : "<0.1";
  const [first, second] = [stroked(String(number), high), stroked(`${below}%`, low)];
  const right = size.width - high * 0.6;
  const middle = size.height / 2;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${size.width}" height="${size.height}">
    <rect width="100%" height="100%" fill="#fff"/>
    <g fill="none" stroke-linecap="round" stroke-linejoin="round" stroke-width="1.25">
      <g transform="translate(${right - first.width} ${middle - high * 1.1}) scale(${
    high / 10
  })" stroke="#1c1c22"
        stroke-width="1.5">${first.strokes}</g>
      <g transform="translate(${right - second.width} ${middle + high * 0.5}) scale(${
    low / 10
  })" stroke="#6b6b76"
        >${second.strokes}</g>
    </g>
    <circle cx="${right - high * 0.3}" cy="${middle - high * 2}" r="${high * 0.34}" fill="rgb(${color})"/>
  </svg>`;
  return Effect.promise(async () => ({
    ...size,
    rgb: await sharp(new TextEncoder().encode(svg)).removeAlpha().raw().toBuffer(),
  }));
};

/** The width of each character in a box of height 10, and its strokes as an SVG path. */
const SIGNS: Readonly<Record<string, readonly [number, string]>> = {
  "0": [6, "M3 0C1 0 0 2 0 5s1 5 3 5 3-2 3-5S5 0 3 0z"],
  "1": [6, "M1 2 3.6 0V10"],
  "2": [6, "M.3 2.6C.3 1 1.4 0 3 0s2.8 1 2.8 2.7C5.8 5 .4 7.5.2 10H6"],
  "3": [
    6,
    "M.3 1.6C.8.6 1.8 0 3 0c1.6 0 2.7.9 2.7 2.4S4.6 4.7 2.5 4.7C4.8 4.7 6 5.7 6 7.3S4.8 10 3 10C1.5 10 .4 9.3 0 8.2",
  ],
  "4": [6, "M4.6 10V0L0 7h6"],
  "5": [6, "M5.5 0H1L.5 4.6C1.1 4 2 3.7 3 3.7c1.8 0 3 1.2 3 3.1S4.8 10 3 10C1.5 10 .5 9.3 0 8.2"],
  "6": [
    6,
    "M5.6 1.6C5.1.6 4.2 0 3.1 0 1 0 0 2 0 5.4 0 8.3 1 10 3 10c1.8 0 3-1.3 3-3.2S4.8 3.7 3 3.7C1.4 3.7.2 4.7 0 6.2",
  ],
  "7": [6, "M0 0h6L2 10"],
  "8": [
    6,
    "M3 4.7C1.5 4.7.4 3.8.4 2.3S1.5 0 3 0s2.6.9 2.6 2.3S4.5 4.7 3 4.7C1.2 4.7 0 5.8 0 7.3S1.2 10 3 10s3-1.1 3-2.7S4.8 4.7 3 4.7z",
  ],
  "9": [
    6,
    "M.4 8.4C.9 9.4 1.8 10 2.9 10 5 10 6 8 6 4.6 6 1.7 5 0 3 0 1.2 0 0 1.3 0 3.2s1.2 3.1 3 3.1c1.6 0 2.8-1 3-2.5",
  ],
  ".": [1, "M.5 10v0"],
  "<": [5, "M5 1.5 0 5l5 3.5"],
  "%": [9, "M7.8 0 1.2 10M2 0a2 2 0 100 4 2 2 0 100-4zM7 6a2 2 0 100 4 2 2 0 100-4z"],
};

const stroked = (text: string, height: number) => {
  let width = 0;
  const strokes = [...text].map((sign) => {
    const [wide, path] = SIGNS[sign];
    const drawn = `<path d="${path}" transform="translate(${width} 0)"/>`;
    width += wide + 2.2;
    return drawn;
  });
  return { width: (width - 2.2) * height / 10, strokes: strokes.join("") };
};
