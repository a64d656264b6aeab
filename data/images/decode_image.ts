/**
 * Picture files to 8-bit RGB, as the published loader (Pillow's `Image.open(file).convert("RGB")`) reads them.
 *
 * Content decides over the name. EXIF orientation and colour profiles are not applied, alpha is dropped without
 * blending, greyscale is repeated into three channels, of 16-bit colours the upper byte is kept. Two conversions are
 * Pillow's own and stand below: CMYK, and 16-bit greyscale, which clips.
 */
import { Data, Effect } from "effect";
import sharp from "sharp";

export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array; // [H, W, 3]
}

/** A file that is no picture, is damaged, or cannot be read. */
export class DecodeError extends Data.Error<{
  readonly subject: string;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "DecodeError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot decode "${this.subject}": ${this.reason}`;
  }
}

// Every other format that libvips knows (SVG, PDF, ...) runs more code than a photograph should.
const FORMATS = ["jpeg", "png", "webp", "gif", "tiff", "heif"];

// Pillow's own limit: half a gigabyte of RGB. A file of a few kilobytes can claim far more.
const MOST_PIXELS = 178_956_970;

// Every picture is decoded once an epoch: keeping results would only hold memory.
sharp.cache(false);

/** Decodes the first picture in `bytes`; `name` is for the error alone. */
export const decodeImage = (bytes: Uint8Array, name: string): Effect.Effect<Picture, DecodeError> =>
  Effect.tryPromise({
    try: () => decode(bytes),
    catch: (error) => new DecodeError({ subject: name, reason: reasonOf(error) }),
  });

/** Reads and decodes a picture. */
export const readPicture = Effect.fnUntraced(function* (file: string) {
  const bytes = yield* Effect.tryPromise({
    try: () => Deno.readFile(file),
    catch: (error) => new DecodeError({ subject: file, reason: (error as Error).message }),
  });
  return yield* decodeImage(bytes, file);
});

class Refusal extends Error {}

const decode = async (bytes: Uint8Array): Promise<Picture> => {
  if (bytes.length === 0) throw new Refusal("the file is empty (0 bytes)");
  // "error" stops at truncated data but lets pass what libjpeg only warns of, as Pillow does.
  const file = sharp(bytes, { failOn: "error", ignoreIcc: true, limitInputPixels: false });
  const { format, width, height, space, channels } = await file.metadata();
  if (!FORMATS.includes(format)) throw new Refusal(unknownFormat);
  if (width * height > MOST_PIXELS) {
    throw new Refusal(`it claims ${width} x ${height} pixels, at most ${MOST_PIXELS} are allowed`);
  }
  if (space === "cmyk") {
    const cmyk = await file.pipelineColourspace("cmyk").toColourspace("cmyk").raw().toBuffer();
    return { width, height, rgb: cmykToRgb(cmyk) };
  }
  if (space === "grey16" && channels === 1) {
    const raw = await file.pipelineColourspace("grey16").toColourspace("grey16").raw({ depth: "ushort" })
      .toBuffer();
    return { width, height, rgb: grey16ToRgb(new Uint16Array(raw.buffer, raw.byteOffset, width * height)) };
  }
  return { width, height, rgb: await file.removeAlpha().toColourspace("srgb").raw().toBuffer() };
};

/** Ink is what is missing of white, dimmed by black: R = (255 − K) − C (255 − K) / 255, rounded, at least 0. */
const cmykToRgb = (cmyk: Uint8Array): Uint8Array => {
  const rgb = new Uint8Array((cmyk.length / 4) * 3);
  for (let from = 0, to = 0; from < cmyk.length; from += 4) {
    const white = 255 - cmyk[from + 3];
    for (let ink = 0; ink < 3; ink++) {
      rgb[to++] = white - Math.round((cmyk[from + ink] * white) / 255);
    }
  }
  return rgb;
};

/** Pillow clips 16-bit greys at 255 instead of scaling them: most such pictures turn out nearly white. */
const grey16ToRgb = (grey: Uint16Array): Uint8Array => {
  const rgb = new Uint8Array(grey.length * 3);
  for (let i = 0; i < grey.length; i++) rgb.fill(Math.min(grey[i], 255), 3 * i, 3 * i + 3);
  return rgb;
};

const unknownFormat = "its content is none of JPEG, PNG, WebP, GIF, TIFF and AVIF";

const reasonOf = (error: unknown): string => {
  if (error instanceof Refusal) return error.message;
  const [first] = String(error instanceof Error ? error.message : error).split("\n");
  if (first.includes("unsupported image format")) return unknownFormat;
  return `it is truncated or damaged (${first})`;
};
