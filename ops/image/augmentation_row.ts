/** The rows of u32 words that the augmentation kernels read, one a view: where in a row what stands. */

/** Where in a row what stands. */
export const AUGMENTATION_ROW = {
  /** Byte of the pixel buffer at which the box begins. */
  start: 0,
  /** Bytes from one row of the picture to the next. */
  stride: 1,
  /** 1: mirrored left to right. */
  flip: 2,
  /** Four pairs: a kind of `JITTER`, then its factor as f32, for hue the shift in 1/256 turns as u32. */
  jitter: 3,
  /** 1: reduced to luma. */
  gray: 11,
  /** The box blur, three of which stand for the Gaussian: whole pixels on each side of the centre, … */
  blurRadius: 12,
  /** … the weight of each of them, and of the two pixels beyond, in 2^-24. No blur: 0, 2^24, 0. */
  blurInner: 13,
  blurOuter: 14,
  /** Values from here on are inverted; 256: none are. */
  solarize: 15,
  /** Always 0. Kernels use it where the compiler must not see that a value is what it is. */
  zero: 16,
  /** Taps of the columns, then of the rows, as `bicubicTaps` lays them out. */
  taps: 17,
} as const;

/** Kinds of colour operations in `VIEW.jitter`; 0 is none. */
export const JITTER = { brightness: 1, contrast: 2, saturation: 3, hue: 4 } as const;

export interface AugmentationRowSize {
  /** Side of the square views in pixels. */
  readonly imageSize: number;
  /** Most pixels that an output pixel may take from each axis: 4 times the strongest reduction. */
  readonly maxTaps: number;
}

/** Words a view. */
export const augmentationRowWords = ({ imageSize, maxTaps }: AugmentationRowSize): number =>
  AUGMENTATION_ROW.taps + 2 * imageSize * (2 + maxTaps);
