/** The random draws of an image's augmentation, in the order of the published pipeline (docs/method.md, section 17). */
import { IGNORED } from "../../../data/datasets/segmentation/label_source.ts";
import type { Distortion } from "../../../data/images/distort.ts";
import type { Box } from "../../../data/images/resample.ts";
import type { Size } from "../../../data/images/resize.ts";
import type { Random } from "../../../data/random/random.ts";
import type { SegmentationConfig } from "./config.ts";

/** How far an image's augmentation may go: options of a run. */
export type AugmentationOptions = Pick<
  SegmentationConfig,
  | "longSide"
  | "shortSide"
  | "minRatio"
  | "maxRatio"
  | "cropSize"
  | "maxClassShare"
  | "flip"
  | "colorDistortion"
>;

/** The most that the longer and the shorter side of an image may have. */
export type Limits = Pick<SegmentationConfig, "longSide" | "shortSide">;

/** Both limits times `ratio`, cut off. */
export const scaledLimits = ({ longSide, shortSide }: Limits, ratio: number): Limits => (
  { longSide: Math.trunc(longSide * ratio), shortSide: Math.trunc(shortSide * ratio) }
);

/** The largest size of an image within limits; its proportions stay. */
export const resizedSize = ({ width, height }: Size, { longSide, shortSide }: Limits): Size => {
  const factor = Math.min(
    Math.max(longSide, shortSide) / Math.max(width, height),
    Math.min(longSide, shortSide) / Math.min(width, height),
  );
  return {
    width: Math.max(1, Math.trunc(width * factor + 0.5)),
    height: Math.max(1, Math.trunc(height * factor + 0.5)),
  };
};

/** The box [top, left, height, width] of at most the size `crop` that begins there in an image. */
export const croppedTo = (crop: Size, { width, height }: Size, top: number, left: number): Box => [
  top,
  left,
  Math.min(height, crop.height),
  Math.min(width, crop.width),
];

/** A random box of at most the size `crop` inside of an image. */
export const drawBox = (random: Random, size: Size, crop: Size): Box => {
  const top = random.integer(Math.max(size.height - crop.height, 0) + 1);
  const left = random.integer(Math.max(size.width - crop.width, 0) + 1);
  return croppedTo(crop, size, top, left);
};

/** Boxes that are judged before one is taken unseen. */
const JUDGED = 10;

/** The first of the boxes that is accepted; after ten that are not the eleventh, whatever it holds. */
export const chooseBox = (nextBox: () => Box, accepts: (box: Box) => boolean): Box => {
  for (let judged = 0; judged < JUDGED; judged++) {
    const box = nextBox();
    if (accepts(box)) return box;
  }
  return nextBox();
};

/** Whether the labels of a box hold two classes or more, none with `share` of the counted pixels; any do where it is 1. */
export const isAccepted = (labels: Uint8Array, share: number): boolean => {
  if (share === 1) return true;
  const pixels = new Uint32Array(256);
  for (let i = 0; i < labels.length; i++) pixels[labels[i]]++;
  pixels[IGNORED] = 0;
  let classes = 0, most = 0, all = 0;
  for (const count of pixels) {
    classes += Number(count > 0);
    most = Math.max(most, count);
    all += count;
  }
  return classes > 1 && most / all < share;
};

/** Whether an image is flipped left to right. */
export const drawFlip = (random: Random, probability: number): boolean => random.uniform() < probability;

/** A change of colour and by how much (distort.ts); null where it is left out. */
export type DrawnDistortion = readonly [Distortion, number | null];

/** The changes of colour in the order in which they are made. */
export const drawDistortions = (random: Random): readonly DrawnDistortion[] => {
  const either = (value: () => number) => random.uniform() < 0.5 ? value() : null;
  const factor = () => random.uniform(0.5, 1.5);
  const brightness: DrawnDistortion = ["brightness", either(() => random.uniform(-32, 32))];
  const contrastSecond = random.uniform() < 0.5;
  const contrast = (): DrawnDistortion => ["contrast", either(factor)];
  const second = contrastSecond ? [contrast()] : [];
  const saturation: DrawnDistortion = ["saturation", either(factor)];
  const hue: DrawnDistortion = ["hue", either(() => random.integer(36) - 18)];
  const last = contrastSecond ? [] : [contrast()];
  return [brightness, ...second, saturation, hue, ...last];
};
