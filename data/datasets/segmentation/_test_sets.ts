/** Small data sets for tests. */
import { dirname, join } from "node:path";
import sharp from "sharp";
import { writeImage } from "../../_test_kit.ts";
import { randomStream } from "../../random/random.ts";
import type { SegmentationSetOptions } from "./segmentation_set.ts";

/** Options of a data set in `dataDir`. */
export const setOptions = (
  dataDir: string,
  options: Partial<SegmentationSetOptions>,
): SegmentationSetOptions => ({
  dataset: "masks",
  dataDir,
  trainList: null,
  valList: null,
  classFile: null,
  labelKind: null,
  reduceZeroLabel: false,
  trainImages: null,
  seed: 0,
  ...options,
});

/** Writes an image of noise, as JPEG or PNG by its name. */
export const writeNoiseImage = async (file: string, width = 12, height = 8, seed = 0): Promise<void> => {
  await Deno.mkdir(dirname(file), { recursive: true });
  const random = randomStream(seed);
  const rgb = Uint8Array.from({ length: 3 * width * height }, () => random.integer(256));
  await writeImage(file, { width, height, rgb }, file.endsWith(".png") ? "png" : "jpeg");
};

/** Writes a grey PNG of numbers, 12 × 8 unless given, from the number at each pixel. */
export const writeLabels = async (
  file: string,
  at: (i: number) => number,
  width = 12,
  height = 8,
): Promise<void> => {
  await Deno.mkdir(dirname(file), { recursive: true });
  const numbers = Uint8Array.from({ length: width * height }, (_, i) => at(i));
  await sharp(numbers, { raw: { width, height, channels: 1 } }).toColourspace("b-w").png().toFile(file);
};

/** Writes text files, by their paths inside of a folder. */
export const writeTexts = async (folder: string, texts: Readonly<Record<string, string>>): Promise<void> => {
  for (const [path, text] of Object.entries(texts)) {
    await Deno.mkdir(dirname(join(folder, path)), { recursive: true });
    await Deno.writeTextFile(join(folder, path), text);
  }
};
