/** Files of a data set that cannot be decoded, and the images that stand in for them. */
import { Data, Effect } from "effect";
import { randomStream } from "../../data/random/random.ts";
import type { RunConfig } from "./options.ts";

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
export interface BadImage {
  /** Its index. */
  readonly image: number;
  /** A sentence that names the file. */
  readonly reason: string;
}

/** The bad images that a run has met so far. */
export interface BadImages {
  /**
   * The image itself, or if it is bad the first good one of a random sequence that depends on image and epoch alone.
   */
  readonly standIn: (image: number, epoch: number) => number;
  /** Adds bad images and logs a warning for each, once. Fails with a `TooManyBadImagesError`. */
  readonly add: (found: readonly BadImage[]) => Effect.Effect<void, TooManyBadImagesError>;
}

/** The word of a random key that tells these draws from the others of a seed. */
const STAND_IN = 4;

/** No bad images yet, of a data set of `images` images. */
export const badImages = (
  images: number,
  { seed, maxBadImages }: Pick<RunConfig, "seed" | "maxBadImages">,
): BadImages => {
  const reasons = new Map<number, string>();
  return {
    standIn: (image, epoch) => {
      const random = randomStream(seed, STAND_IN, epoch, image);
      while (reasons.has(image)) image = random.integer(images);
      return image;
    },
    add: Effect.fnUntraced(function* (found) {
      for (const { image, reason } of found) {
        if (reasons.has(image)) continue; // another batch met it meanwhile
        reasons.set(image, reason);
        yield* Effect.logWarning(`${reason}. Another picture takes its place.`);
      }
      if (reasons.size > maxBadImages * images || reasons.size === images) {
        return yield* new TooManyBadImagesError({ reasons: [...reasons.values()], images, maxBadImages });
      }
    }),
  };
};
