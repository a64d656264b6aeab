/**
 * Changes of colour as OpenCV and mmcv make them of bytes, in place: brightness, contrast, and saturation and hue by way
 * of HSV (h from 0 to 179), to the bit.
 */
import type { Picture } from "./picture.ts";
import { roundHalfEven } from "./round_half_even.ts";

/** A change of colour. */
export type Distortion = "brightness" | "contrast" | "saturation" | "hue";

/**
 * Changes the colours of an image in place: adds `value` (brightness), multiplies by it (contrast, saturation), or adds
 * it to the hue, a whole number in units of 2°.
 */
export const distort = (image: Picture, distortion: Distortion, value: number): void => {
  if (distortion === "brightness") replace(image.rgb, scaled(1, value));
  else if (distortion === "contrast") replace(image.rgb, scaled(value, 0));
  else if (distortion === "saturation") changeHsv(image, IDENTITY, scaled(value, 0));
  else changeHsv(image, turnedHues(value), IDENTITY);
};

/** By byte: the byte times alpha plus beta in single precision, limited to 0 … 255 and cut off. */
const scaled = (alpha: number, beta: number): Uint8Array => {
  const [factor, summand] = [Math.fround(alpha), Math.fround(beta)];
  return Uint8Array.from(
    { length: 256 },
    (_, byte) => Math.min(Math.max(Math.fround(Math.fround(byte * factor) + summand), 0), 255),
  );
};

const IDENTITY = Uint8Array.from({ length: 256 }, (_, byte) => byte);

const turnedHues = (by: number): Uint8Array =>
  Uint8Array.from({ length: 256 }, (_, hue) => ((hue + by) % 180 + 180) % 180);

const replace = (bytes: Uint8Array, table: Uint8Array): void => {
  for (let i = 0; i < bytes.length; i++) bytes[i] = table[bytes[i]];
};

// --- HSV ---

/** Binary digits of the quotients behind the point. */
const SHIFT = 12;
/** The saturation of a difference of 1 at a value, and the hue of a difference of 1 among so many. */
const SATURATIONS = Int32Array.from({ length: 256 }, (_, v) => v === 0 ? 0 : Math.round((255 << SHIFT) / v));
const HUES = Int32Array.from({ length: 256 }, (_, d) => d === 0 ? 0 : Math.round((180 << SHIFT) / (6 * d)));
const HALF = 1 << (SHIFT - 1);

/** Hues and saturations, of which there are so many, that a pixel of HSV can have. */
const HUE_COUNT = 180;

/** By hue: the sector 0 … 5 that it is in. */
const SECTORS = new Uint8Array(HUE_COUNT);
/** By hue * 256 + saturation: what the value is multiplied by for the channel between the largest and the smallest. */
const MIDDLE = new Float32Array(HUE_COUNT * 256);
/** By saturation: what the value is multiplied by for the smallest channel. */
const SMALLEST = new Float32Array(256);
/** Values as fractions. */
const VALUES = Float32Array.from({ length: 256 }, (_, v) => v * Math.fround(1 / 255));

for (let s = 0; s < 256; s++) SMALLEST[s] = 1 - VALUES[s];
for (let h = 0; h < HUE_COUNT; h++) {
  const position = Math.fround(h * Math.fround(6 / 180));
  const sector = SECTORS[h] = Math.floor(position);
  const fraction = Math.fround(position - sector);
  // Falls in odd sectors, rises in even ones; product and difference are rounded once, together.
  const by = sector % 2 === 1 ? fraction : Math.fround(1 - fraction);
  for (let s = 0; s < 256; s++) MIDDLE[h * 256 + s] = 1 - VALUES[s] * by;
}

/** By sector: where the largest, the middle and the smallest channel are. */
const LARGEST_AT = Uint8Array.of(0, 1, 1, 2, 2, 0);
const MIDDLE_AT = Uint8Array.of(1, 0, 2, 1, 0, 2);
const SMALLEST_AT = Uint8Array.of(2, 2, 0, 0, 1, 1);

/** OpenCV works on so many pixels of a row at a time and cuts off; those that are left over in a row it rounds. */
const VECTOR = 32;

const changeHsv = ({ rgb, width, height }: Picture, hues: Uint8Array, saturations: Uint8Array): void => {
  const cut = width - width % VECTOR;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 3) {
      const r = rgb[at], g = rgb[at + 1], b = rgb[at + 2];
      const v = r > g ? (r > b ? r : b) : g > b ? g : b;
      const d = v - (r < g ? (r < b ? r : b) : g < b ? g : b);
      const s = saturations[(d * SATURATIONS[v] + HALF) >> SHIFT];
      const across = v === r ? g - b : v === g ? b - r + 2 * d : r - g + 4 * d;
      let h = (across * HUES[d] + HALF) >> SHIFT;
      if (h < 0) h += HUE_COUNT;
      h = hues[h];
      const sector = SECTORS[h], value = VALUES[v];
      const largest = Math.fround(value * 255);
      const middle = Math.fround(Math.fround(value * MIDDLE[h * 256 + s]) * 255);
      const smallest = Math.fround(Math.fround(value * SMALLEST[s]) * 255);
      const isCut = x < cut;
      rgb[at + LARGEST_AT[sector]] = isCut ? largest : roundHalfEven(largest);
      rgb[at + MIDDLE_AT[sector]] = isCut ? middle : roundHalfEven(middle);
      rgb[at + SMALLEST_AT[sector]] = isCut ? smallest : roundHalfEven(smallest);
    }
  }
};
