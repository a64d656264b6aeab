/**
 * Packing of a batch for the GPU: the pixels of its images, and the view table, a row of u32 words for each view that
 * says how to make the view from its image. What has to be exact is computed here in the precision in which Pillow
 * computes it, so that the kernels work on integers. The kernels of ops/image read the rows by the names in
 * `AUGMENTATION_ROW`.
 */
import type { Picture } from "../../data/images/decode_image.ts";
import { bicubicTaps, type Box, cropResize, tapsNeeded } from "../../data/images/resample.ts";
import {
  AUGMENTATION_ROW,
  type AugmentationRowSize,
  augmentationRowWords,
  JITTER,
} from "../../ops/image/augmentation_row.ts";
import type { Jitter, TwoCropDraw, ViewDraw } from "./draws.ts";

/** An image and how its two views are made. */
export interface Sample {
  /** The decoded image. */
  readonly picture: Picture;
  /** The draws of its views. */
  readonly draw: TwoCropDraw;
}

/** A batch of B samples as the GPU takes it. Rows are view-major: all first views, then all second views. */
export interface PackedBatch {
  /** RGB bytes of all images, each from a 4-byte boundary on; at most `capacity` bytes. */
  readonly pixels: Uint32Array;
  /** The view table, [2B, augmentationRowWords]. */
  readonly views: Uint32Array;
  /** The region shared with the other view, [2B, 4]: x1, y1, x2, y2 as fractions of the view. */
  readonly coords: Float32Array;
  /** 1 where the view is mirrored, [2B]. */
  readonly flips: Float32Array;
}

/**
 * Packs a batch. `capacity` is the size of the pixel buffer in bytes, at least 6 · imageSize² + 4 a sample and a
 * multiple of 4; throws a RangeError otherwise.
 *
 * An image that does not fit, or that is reduced by more than maxTaps / 4, is cropped and resized here instead of on
 * the GPU, with the same bits as result.
 */
export const packBatch = (
  samples: readonly Sample[],
  { imageSize, maxTaps, capacity }: AugmentationRowSize & { capacity: number },
): PackedBatch => {
  const count = samples.length;
  const reserved = paddedBytes(2 * imageSize * imageSize); // finished views always fit
  if (capacity % 4 !== 0 || capacity < count * reserved) {
    throw new RangeError(
      `${count} samples need a capacity of ${
        count * reserved
      } bytes or more, a multiple of 4: it is ${capacity}`,
    );
  }
  const words = augmentationRowWords({ imageSize, maxTaps });
  const pixels = new Uint32Array(capacity / 4); // pages that are not written to take no memory
  const bytes = new Uint8Array(pixels.buffer);
  const views = new Uint32Array(2 * count * words);
  const coords = new Float32Array(2 * count * 4);
  const flips = new Float32Array(2 * count);
  let used = 0;

  samples.forEach((sample, i) => {
    const room = capacity - used - (count - 1 - i) * reserved;
    const onGpu = bytesUsed(sample) <= room && mostTaps(sample, imageSize) <= maxTaps;
    const { picture, draw } = onGpu ? sample : finishViews(sample, imageSize);
    const { top, bottom } = rowsUsed(draw);
    bytes.set(picture.rgb.subarray(3 * picture.width * top, 3 * picture.width * bottom), used);
    const start = used - 3 * picture.width * top; // where the image's first row would be
    used += paddedBytes(picture.width * (bottom - top));

    draw.views.forEach((view, side) => {
      const row = side * count + i;
      const table = views.subarray(row * words, (row + 1) * words);
      writeBox(table, start, picture.width, view.box, { imageSize, maxTaps });
      writeOperations(table, view);
      coords.set(draw.coords[side], 4 * row);
      flips[row] = Number(view.flip);
    });
  });
  return { pixels: pixels.subarray(0, used / 4), views, coords, flips };
};

/**
 * The sample as a smaller image: both views, cropped and resized, one above the other. The same bits are computed from
 * it.
 */
export const finishViews = ({ picture, draw: { views, coords } }: Sample, size: number): Sample => {
  const rgb = new Uint8Array(2 * size * size * 3);
  const [upper, lower] = views.map((view, side) => {
    rgb.set(cropResize(picture, view.box, size).rgb, side * size * size * 3);
    return { ...view, box: [side * size, 0, size, size] as const };
  });
  return { picture: { width: size, height: 2 * size, rgb }, draw: { views: [upper, lower], coords } };
};

/** The rows of the image that its views use. */
const rowsUsed = ({ views }: TwoCropDraw): { readonly top: number; readonly bottom: number } => ({
  top: Math.min(...views.map(({ box }) => box[0])),
  bottom: Math.max(...views.map(({ box }) => box[0] + box[2])),
});

const bytesUsed = ({ picture, draw }: Sample): number => {
  const { top, bottom } = rowsUsed(draw);
  return paddedBytes(picture.width * (bottom - top));
};

/** The taps that the longest side of the boxes needs. */
const mostTaps = ({ draw: { views } }: Sample, size: number): number =>
  tapsNeeded(Math.max(...views.flatMap(({ box: [, , height, width] }) => [height, width])), size);

/** Bytes of so many RGB pixels, up to the next 4-byte boundary. */
const paddedBytes = (pixels: number): number => Math.ceil(3 * pixels / 4) * 4;

/** Writes where the box is in the pixel buffer, whose byte `image` is the image's first, and how it is resized. */
const writeBox = (
  table: Uint32Array,
  image: number,
  imageWidth: number,
  [top, left, height, width]: Box,
  { imageSize, maxTaps }: AugmentationRowSize,
) => {
  table[AUGMENTATION_ROW.start] = image + 3 * (top * imageWidth + left);
  table[AUGMENTATION_ROW.stride] = 3 * imageWidth;
  table.set(bicubicTaps(width, imageSize, maxTaps), AUGMENTATION_ROW.taps);
  table.set(bicubicTaps(height, imageSize, maxTaps), AUGMENTATION_ROW.taps + imageSize * (2 + maxTaps));
};

const writeOperations = (table: Uint32Array, { flip, jitter, gray, blur, solarize }: ViewDraw) => {
  // The GPU computes the view's mean luma once, just before the change of contrast.
  if (jitter.length > 4 || jitter.filter(([kind]) => kind === "contrast").length > 1) {
    throw new RangeError(
      `A view takes at most four colour operations, one of them contrast: ${jitter.join("; ")}`,
    );
  }
  table[AUGMENTATION_ROW.flip] = Number(flip);
  jitter.forEach((operation, i) => table.set(jitterWords(operation), AUGMENTATION_ROW.jitter + 2 * i));
  table[AUGMENTATION_ROW.gray] = Number(gray);
  table.set(boxBlur(blur ?? 0), AUGMENTATION_ROW.blurRadius);
  table[AUGMENTATION_ROW.solarize] = solarize ? 128 : 256;
};

const jitterWords = ([kind, factor]: Jitter): [kind: number, factor: number] => [
  JITTER[kind],
  kind === "hue" ? Math.trunc(factor * 255) & 0xff : new Uint32Array(Float32Array.of(factor).buffer)[0],
];

/**
 * The box blur that, done three times, is Pillow's Gaussian blur: radius, inner and outer weight. A box of length
 * 2(l + a) + 1 has whole pixels up to l on each side and the fraction a of the next ones (Gwosdek, Grewenig, Bruhn and
 * Weickert, "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011, equations 7 to 14).
 * Pillow computes it in f32.
 */
const boxBlur = (sigma: number): [radius: number, inner: number, outer: number] => {
  const f = Math.fround;
  const variance = f(f(f(sigma) * f(sigma)) / 3); // of one of three boxes
  const length = f(Math.sqrt(12 * variance + 1));
  const l = Math.floor((length - 1) / 2);
  const next = (l + 1) * (l + 1);
  const a = f(f((2 * l + 1) * f(l * (l + 1) - f(3 * variance))) / f(6 * f(variance - next)));
  const extent = f(l + a);
  const radius = Math.trunc(extent);
  const inner = Math.trunc(f(2 ** 24 / f(2 * extent + 1)));
  return [radius, inner, Math.trunc((2 ** 24 - (2 * radius + 1) * inner) / 2)];
};
