/**
 * The random draws of an image's two views: numbers only, the pixels are the GPU's work.
 *
 * Boxes, colours and probabilities are those of the published training code: two crops that should overlap, then the
 * asymmetric colour operations of BYOL (Grill et al. 2020, table 6).
 */
import type { Box } from "../../data/images/resample.ts";
import type { Random } from "../../data/random/random.ts";

/** The region that a view shares with the other view: x1, y1, x2, y2 as fractions of the view's width and height. */
export type Coords = readonly [x1: number, y1: number, x2: number, y2: number];

/**
 * A colour operation and its factor, of which 1 changes nothing; for hue a shift in turns, −0.5 … 0.5, of which 0
 * does.
 */
export type Jitter = readonly [kind: "brightness" | "contrast" | "saturation" | "hue", factor: number];

/** How one view is made. The operations follow each other in the order of the fields. */
export interface ViewDraw {
  /** The region of the image that the view shows, in pixels. */
  readonly box: Box;
  /** Whether the view is mirrored left to right after resizing. */
  readonly flip: boolean;
  /** Colour operations, one after the other; at most one of each kind. */
  readonly jitter: readonly Jitter[];
  /** Whether the view is reduced to luma. */
  readonly gray: boolean;
  /** Standard deviation of the Gaussian blur, in pixels of the view; null without a blur. */
  readonly blur: number | null;
  /** Whether values of 128 and more are inverted. */
  readonly solarize: boolean;
}

/** How both views of an image are made. */
export interface TwoCropDraw {
  /** The first view and the second one. */
  readonly views: readonly [ViewDraw, ViewDraw];
  /** The region shared by both views, in each view after flipping. */
  readonly coords: readonly [Coords, Coords];
}

/** The size of an image in pixels. */
interface Size {
  readonly width: number;
  readonly height: number;
}

/** Draws both views of an image of `size`; `minScale` is the smallest share of the image's area that a box aims at. */
export const drawTwoCrops = (
  random: Random,
  size: Size,
  { minScale }: { readonly minScale: number },
): TwoCropDraw => {
  const first = drawBox(random, size, minScale);
  // After ten boxes that overlap too little, the second view is drawn without this condition: it may not overlap at
  // all.
  const second = tryBoxes(random, size, minScale, (box, target) => overlap(box, first) >= 0.01 * target) ??
    drawBox(random, size, minScale);
  const views = [
    drawView(random, first, { blurProbability: 1, solarizeProbability: 0 }),
    drawView(random, second, { blurProbability: 0.1, solarizeProbability: 0.2 }),
  ] as const;
  return { views, coords: sharedRegion(views) };
};

/**
 * The region that two views share, as fractions of each view, after flipping; x2 < x1 or y2 < y1 where they share
 * nothing. It is rounded to f32 at the same points as in the published code, so that the numbers are the same bit for
 * bit.
 */
export const sharedRegion = (
  views: readonly [Pick<ViewDraw, "box" | "flip">, Pick<ViewDraw, "box" | "flip">],
): readonly [Coords, Coords] => {
  const [[top0, left0, height0, width0], [top1, left1, height1, width1]] = [views[0].box, views[1].box];
  const left = Math.max(left0, left1), right = Math.min(left0 + width0, left1 + width1);
  const top = Math.max(top0, top1), bottom = Math.min(top0 + height0, top1 + height1);
  const within = (
    { box: [boxTop, boxLeft, height, width], flip }: Pick<ViewDraw, "box" | "flip">,
  ): Coords => {
    const x1 = Math.fround((left - boxLeft) / width), x2 = Math.fround((right - boxLeft) / width);
    const y1 = Math.fround((top - boxTop) / height), y2 = Math.fround((bottom - boxTop) / height);
    return flip ? [Math.fround(1 - x2), y1, Math.fround(1 - x1), y2] : [x1, y1, x2, y2];
  };
  return [within(views[0]), within(views[1])];
};

const drawView = (
  random: Random,
  box: Box,
  { blurProbability, solarizeProbability }: { blurProbability: number; solarizeProbability: number },
): ViewDraw => ({
  box,
  flip: happens(random, 0.5),
  jitter: happens(random, 0.8) ? drawJitter(random) : [],
  gray: happens(random, 0.2),
  blur: happens(random, blurProbability) ? random.uniform(0.1, 2) : null,
  solarize: happens(random, solarizeProbability),
});

const happens = (random: Random, probability: number): boolean => random.uniform() < probability;

const drawJitter = (random: Random): Jitter[] => {
  const left: Jitter[] = [
    ["brightness", random.uniform(0.6, 1.4)],
    ["contrast", random.uniform(0.6, 1.4)],
    ["saturation", random.uniform(0.8, 1.2)],
    ["hue", random.uniform(-0.1, 0.1)],
  ];
  const ordered: Jitter[] = [];
  while (left.length > 0) ordered.push(...left.splice(random.integer(left.length), 1));
  return ordered;
};

const WIDEST = 4 / 3;
const NARROWEST = 3 / 4;

/**
 * A box inside the image, of an aspect ratio between 3 : 4 and 4 : 3; after ten boxes that do not fit, the largest
 * central one.
 */
const drawBox = (random: Random, size: Size, minScale: number): Box =>
  tryBoxes(random, size, minScale, () => true) ?? centralBox(size);

/** The first of ten boxes that is inside the image and accepted; `target` is the area that the box aimed at. */
const tryBoxes = (
  random: Random,
  { width, height }: Size,
  minScale: number,
  accept: (box: Box, target: number) => boolean,
): Box | null => {
  for (let attempt = 0; attempt < 10; attempt++) {
    const target = random.uniform(minScale, 1) * width * height;
    const aspect = Math.exp(random.uniform(Math.log(NARROWEST), Math.log(WIDEST)));
    const w = Math.round(Math.sqrt(target * aspect));
    const h = Math.round(Math.sqrt(target / aspect));
    if (w < 1 || w > width || h < 1 || h > height) continue;
    const box: Box = [random.integer(height - h + 1), random.integer(width - w + 1), h, w];
    if (accept(box, target)) return box;
  }
  return null;
};

const centralBox = ({ width, height }: Size): Box => {
  const w = Math.min(width, Math.round(height * WIDEST));
  const h = Math.min(height, Math.round(width / NARROWEST));
  return [Math.floor((height - h) / 2), Math.floor((width - w) / 2), h, w];
};

/** The area that two boxes share, in pixels. */
const overlap = (a: Box, b: Box): number =>
  Math.max(0, Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0])) *
  Math.max(0, Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]));
