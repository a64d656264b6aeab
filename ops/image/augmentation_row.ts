/**
 * The table [N, words] of u32 that the augmentation kernels read: a row per view, with the outcome of its random draws.
 */

/** The words of a row, by their index. */
export const AUGMENTATION_ROW = {
  /** Byte of the pixel buffer at which the view's box begins. */
  start: 0,
  /** Bytes from one row of the image to the next. */
  stride: 1,
  /** 1: mirrored left to right. */
  flip: 2,
  /** Four pairs: a kind of `JITTER`, then its factor as f32, for hue the shift in 1/256 turns as u32. */
  jitter: 3,
  /** 1: reduced to luma. */
  gray: 11,
  /** Three box blurs approximate the Gaussian: their whole pixels on each side of the centre; 0 for no blur. */
  blurRadius: 12,
  /** The weight of each of these pixels and the centre, in units of 2^-24; 2^24 for no blur. */
  blurInner: 13,
  /** The weight of the two pixels beyond, in units of 2^-24; 0 for no blur. */
  blurOuter: 14,
  /** Values from this one on are inverted; 256 for none. */
  solarize: 15,
  /** Always 0: kernels use it to hide from the compiler that a value does not change. */
  zero: 16,
  /** Taps of the columns, then of the rows: for each the first pixel, how many, and as many weights as `maxTaps`. */
  taps: 17,
} as const;

/** Kinds of colour operations in `AUGMENTATION_ROW.jitter`; 0 is none. */
export const JITTER = { brightness: 1, contrast: 2, saturation: 3, hue: 4 } as const;

/** What determines the length of a row. */
export interface AugmentationRowSize {
  /** Side of the square views in pixels. */
  readonly imageSize: number;
  /** The most input pixels that an output pixel weighs along an axis: 4 times the strongest reduction. */
  readonly maxTaps: number;
}

/** Words of a row. */
export const augmentationRowWords = ({ imageSize, maxTaps }: AugmentationRowSize): number =>
  AUGMENTATION_ROW.taps + 2 * imageSize * (2 + maxTaps);
