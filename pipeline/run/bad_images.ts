/** Files of a data set that cannot be decoded: what stands in for them, and how many there may be. */
import { Data, Effect } from "effect";
import { randomStream } from "../../data/random/random.ts";

/** A data set has more unreadable images than `--max-bad-images` allows. */
export class TooManyBadImagesError extends Data.Error<{
  readonly reasons: readonly string[]; // of each bad file, in the order of their discovery
  readonly images: number;
  readonly maxBadImages: number;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "TooManyBadImagesError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    const { reasons, images, maxBadImages } = this;
    const first = reasons.slice(0, 5).map((reason) => `\n  ${reason}`).join("");
    return `${reasons.length} of ${images} pictures cannot be decoded, more than --max-bad-images ${maxBadImages} ` +
      `allows: mend or remove them, or raise it. The first of them:${first}`;
  }
}

/** An image of a data set that cannot be decoded. */
export interface BadImage<Image> {
  /** Its index, or its path. */
  readonly image: Image;
  /** A sentence that names the file. */
  readonly reason: string;
}

/** The bad images of a data set that have been met so far. */
export interface BadImages<Image> {
  /** Whether an image is one of them. */
  readonly has: (image: Image) => boolean;
  /** Why each of them cannot be decoded, in the order of their discovery. */
  readonly reasons: () => readonly string[];
  /** Adds bad images and logs a warning for each, once. Fails with a `TooManyBadImagesError`. */
  readonly add: (found: readonly BadImage<Image>[]) => Effect.Effect<void, TooManyBadImagesError>;
}

/**
 * No bad images yet, of a data set of `images` images, of which the share `maxBadImages` may be bad. `instead` is what
 * warnings say of the place of a bad one.
 */
export const badImages = <Image>(images: number, maxBadImages: number, instead: string): BadImages<Image> => {
  const reasons = new Map<Image, string>();
  return {
    has: (image) => reasons.has(image),
    reasons: () => [...reasons.values()],
    add: Effect.fnUntraced(function* (found) {
      for (const { image, reason } of found) {
        if (reasons.has(image)) continue; // another batch met it meanwhile
        reasons.set(image, reason);
        yield* Effect.logWarning(`${reason}. ${instead}`);
      }
      if (reasons.size > maxBadImages * images || reasons.size > 0 && reasons.size === images) {
        return yield* new TooManyBadImagesError({ reasons: [...reasons.values()], images, maxBadImages });
      }
    }),
  };
};

/** The bad images among these files, which are left out. */
export const leftOut = (files: readonly string[], maxBadImages: number): BadImages<string> =>
  badImages(new Set(files).size, maxBadImages, "It is left out.");

/** The word of a random key that tells these draws from the others of a seed. */
const STAND_IN = 4;

/** The image itself, or if it is bad the first good one of a random sequence that depends on image and epoch alone. */
export const standIn = (
  image: number,
  { bad, images, seed, epoch }: {
    readonly bad: BadImages<number>;
    readonly images: number;
    readonly seed: number;
    readonly epoch: number;
  },
): number => {
  const random = randomStream(seed, STAND_IN, epoch, image);
  while (bad.has(image)) image = random.integer(images);
  return image;
};
