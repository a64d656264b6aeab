/**
 * Image files to 8-bit RGB, as the published loader (Pillow's `Image.open(file).convert("RGB")`) reads them: to the
 * bit, but for AVIF, which Pillow has learnt late and whose colours libraries round differently.
 *
 * The first bytes of a file decide over its format, not its name; only the formats that are named here reach their
 * decoders. Of several frames or pages the first one counts. Orientation is applied to TIFF alone, unless images are
 * wanted upright. Colour profiles are not applied, alpha is dropped without blending, greys are repeated into three channels, of 16-bit colours the upper
 * byte is kept, and 16-bit greys are clipped at 255. CMYK becomes RGB by Pillow's own formula.
 */
import { Data, Effect } from "effect";
import { match } from "ts-pattern";
import { readRegularFile } from "../files/regular_file.ts";
import { withoutTurns } from "./avif.ts";
import { decodeGif } from "./gif.ts";
import { expectSize, type Picture, Refusal } from "./picture.ts";
import { isPng } from "./png.ts";
import { release } from "./release.ts";
import { sharp } from "./sharp.ts";
import { type PlainTiff, plainTiff } from "./tiff.ts";
import { firstFrameOnly } from "./webp.ts";

export type { Picture } from "./picture.ts";

/** A file that is no image, is damaged, or cannot be read. */
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

/** How images are decoded. */
export interface Decoding {
  /** Whether they are turned and mirrored as EXIF or, of AVIF, the file itself asks; not if not given. */
  readonly upright?: boolean;
}

/** Decodes the first image in `bytes`; `name` is for the error alone. */
export const decodeImage = (
  bytes: Uint8Array,
  name: string,
  { upright = false }: Decoding = {},
): Effect.Effect<Picture, DecodeError> =>
  Effect.tryPromise({
    try: () => decode(bytes, upright),
    catch: (error) => new DecodeError({ subject: name, reason: reasonOf(error) }),
  });

const reading = (decoding: Decoding) =>
  Effect.fnUntraced(function* (file: string): Effect.fn.Return<Picture, DecodeError> {
    const bytes = yield* Effect.tryPromise({
      try: () => readRegularFile(file, { largest: LARGEST_FILE, refuse: unlessPicture }),
      catch: (error) => new DecodeError({ subject: file, reason: (error as Error).message }),
    });
    const picture = yield* decodeImage(bytes, file, decoding);
    release(bytes);
    return picture;
  });

/** Reads and decodes an image file. Pipes, devices and folders are refused without being opened. */
export const readPicture: (file: string) => Effect.Effect<Picture, DecodeError> = reading({ upright: false });

/** The same, turned upright. */
export const readUpright: (file: string) => Effect.Effect<Picture, DecodeError> = reading({ upright: true });

/** Six bytes for each pixel of the largest image. */
const LARGEST_FILE = 2 ** 30;
/** Seconds that decoding may take: an image of the most pixels takes ten on a slow machine. */
const LONGEST = 300;

type Format = "JPEG" | "PNG" | "WebP" | "GIF" | "TIFF" | "AVIF";

const unknownFormat = "its content is none of JPEG, PNG, WebP, GIF, TIFF and AVIF";
const unlessPicture = (beginning: Uint8Array) => formatOf(beginning) === null ? unknownFormat : null;

/** The format of a file, by its first bytes. */
const formatOf = (bytes: Uint8Array): Format | null => {
  const text = latin1.decode(bytes.subarray(0, 12));
  if (text.startsWith("\xff\xd8\xff")) return "JPEG";
  if (isPng(bytes)) return "PNG";
  if (/^RIFF....WEBP/s.test(text)) return "WebP";
  if (/^GIF8[79]a/.test(text)) return "GIF";
  if (/^(II[*+]\0|MM\0[*+])/.test(text)) return "TIFF";
  if (text.slice(4, 8) === "ftyp") {
    const size = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(0);
    const brands = latin1.decode(bytes.subarray(8, Math.min(size, MOST_BRANDS)));
    if (/^(.{4})*avif/s.test(brands)) return "AVIF";
  }
  return null;
};

// The label's own meaning is Windows-1252, which agrees with Latin-1 on all bytes that are looked for here but 0x80 to
// 0x9f.
const latin1 = new TextDecoder("latin1");
const MOST_BRANDS = 256;

const decode = async (bytes: Uint8Array, upright: boolean): Promise<Picture> => {
  if (bytes.length === 0) throw new Refusal("the file is empty (0 bytes)");
  const format = formatOf(bytes);
  if (format === null) throw new Refusal(unknownFormat);
  return await match(format)
    .with("GIF", () => decodeGif(bytes))
    .with("TIFF", () => decodeTiff(plainTiff(bytes)))
    .with("PNG", () => decodePng(bytes, upright))
    .with("WebP", () => decodeColors(opened(firstFrameOnly(bytes)), upright))
    .with("AVIF", () => decodeColors(opened(upright ? bytes : withoutTurns(bytes))))
    .with("JPEG", () => decodeColors(opened(bytes), upright))
    .exhaustive();
};

type Opened = ReturnType<typeof sharp>;

/**
 * A file for libvips. "error" stops at truncated data but lets pass what libjpeg only warns of, as Pillow does; libtiff
 * warns where a tile cannot be read, which would stay black.
 */
const opened = (bytes: Uint8Array, failOn: "error" | "warning" = "error"): Opened =>
  sharp(bytes, { failOn, ignoreIcc: true, limitInputPixels: false }).timeout({ seconds: LONGEST });

/** The image, whatever it is; CMYK by Pillow's formula. */
const decodeColors = async (file: Opened, upright = false): Promise<Picture> => {
  const { width, height, space, orientation = 1 } = await sized(file);
  const picture = space === "cmyk"
    ? await decodeCmyk(file)
    : { width, height, rgb: await file.removeAlpha().toColourspace("srgb").raw().toBuffer() };
  return upright ? turned(picture, orientation) : picture;
};

const sized = async (file: Opened) => {
  const facts = await file.metadata();
  expectSize(facts.width, facts.height);
  return facts;
};

const decodeTiff = async ({ bytes, pixels, orientation, palette }: PlainTiff): Promise<Picture> => {
  const file = opened(bytes, "warning");
  const picture = await match(pixels)
    .with("ready", () => decodeColors(file))
    .with("cmyk", () => decodeCmyk(file))
    .with("grey16", () => decodeGrey16(file))
    .with("cmyk16", async () => cmykToRgb(upperBytes(await samplesOf(file, "rgb16", "ushort"))))
    .with("premultiplied8", async () => divided(await samplesOf(file, "srgb", "uchar")))
    .with("premultiplied16", async () => divided(upperBytes(await samplesOf(file, "rgb16", "ushort"))))
    .with("indices", async () => colored(await samplesOf(file, "b-w", "uchar"), palette!))
    .exhaustive();
  return turned(picture, orientation);
};

const decodeCmyk = async (file: Opened): Promise<Picture> =>
  cmykToRgb(await samplesOf(file, "cmyk", "uchar"));

const decodePng = async (bytes: Uint8Array, upright: boolean): Promise<Picture> => {
  if (bytes.length < 26) throw new Refusal("it is truncated or damaged (it ends inside its header)");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  expectSize(view.getUint32(16), view.getUint32(20));
  const [depth, colorType] = [bytes[24], bytes[25]]; // 16 and 0: grey, with a transparent grey or without
  const file = opened(bytes);
  if (depth !== 16 || colorType !== 0) return await decodeColors(file, upright);
  const picture = await decodeGrey16(file);
  return upright ? turned(picture, (await file.metadata()).orientation ?? 1) : picture;
};

/** Pillow clips 16-bit greys at 255 instead of scaling them: most such images turn out nearly white. */
const decodeGrey16 = async (file: Opened): Promise<Picture> =>
  mapped(await samplesOf(file, "grey16", "ushort"), (samples, at, rgb, to) => {
    rgb[to] = rgb[to + 1] = rgb[to + 2] = Math.min(samples[at], 255);
  });

/** An image's samples as they are written: [H, W, channels]. */
interface Samples {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly samples: Uint8Array | Uint16Array;
}

const samplesOf = async (
  file: Opened,
  space: "b-w" | "cmyk" | "grey16" | "rgb16" | "srgb",
  depth: "uchar" | "ushort",
): Promise<Samples> => {
  await sized(file);
  const { data, info } = await file.pipelineColourspace(space).toColourspace(space).raw({ depth })
    .toBuffer({ resolveWithObject: true });
  const { width, height, channels } = info;
  const samples = depth === "uchar" ? data : new Uint16Array(data.buffer, data.byteOffset, data.length / 2);
  return { width, height, channels, samples };
};

/** Each pixel's RGB at `to`, from its samples at `at`. */
const mapped = (
  { width, height, channels, samples }: Samples,
  convert: (samples: Uint8Array | Uint16Array, at: number, rgb: Uint8Array, to: number) => void,
): Picture => {
  const rgb = new Uint8Array(3 * width * height);
  for (let at = 0, to = 0; to < rgb.length; at += channels, to += 3) convert(samples, at, rgb, to);
  return { width, height, rgb };
};

const upperBytes = (samples: Samples): Samples => ({
  ...samples,
  samples: Uint8Array.from(samples.samples, (value) => value >> 8),
});

/** Ink is what is missing of white, dimmed by black: R = (255 − K) − C (255 − K) / 255, rounded, at least 0. */
const cmykToRgb = (cmyk: Samples): Picture =>
  mapped(cmyk, (samples, at, rgb, to) => {
    const white = 255 - samples[at + 3];
    for (let ink = 0; ink < 3; ink++) rgb[to + ink] = white - Math.round((samples[at + ink] * white) / 255);
  });

/** Colours that were multiplied by alpha, divided by it; black where nothing can be seen. */
const divided = (rgba: Samples): Picture =>
  mapped(rgba, (samples, at, rgb, to) => {
    const alpha = samples[at + 3];
    for (let c = 0; c < 3; c++) {
      rgb[to + c] = alpha === 0 ? 0 : Math.min(255, Math.floor(255 * samples[at + c] / alpha));
    }
  });

/** The colours of indices, which come scaled to 0 … 255. */
const colored = (indices: Samples, { largest, values }: NonNullable<PlainTiff["palette"]>): Picture => {
  const palette = Uint8Array.from(values, (value) => value >> 8);
  return mapped(indices, (samples, at, rgb, to) => {
    const index = samples[at] * largest / 255;
    for (let c = 0; c < 3; c++) rgb[to + c] = palette[c * (largest + 1) + index];
  });
};

/** An image turned by TIFF's or EXIF's orientation: mirrored (2, 4, 5, 7), upside down (3, 4), rows as columns (5 to 8). */
const turned = ({ width, height, rgb }: Picture, orientation: number): Picture => {
  if (!(orientation >= 2 && orientation <= 8)) return { width, height, rgb };
  const isTransposed = orientation >= 5;
  const fromRight = [2, 3, 7, 8].includes(orientation), fromBelow = [3, 4, 6, 7].includes(orientation);
  const [W, H] = isTransposed ? [height, width] : [width, height];
  const result = new Uint8Array(rgb.length);
  for (let y = 0, to = 0; y < H; y++) {
    for (let x = 0; x < W; x++, to += 3) {
      const [u, v] = isTransposed ? [y, x] : [x, y];
      const at = 3 * ((fromBelow ? height - 1 - v : v) * width + (fromRight ? width - 1 - u : u));
      result[to] = rgb[at];
      result[to + 1] = rgb[at + 1];
      result[to + 2] = rgb[at + 2];
    }
  }
  return { width: W, height: H, rgb: result };
};

const reasonOf = (error: unknown): string => {
  if (error instanceof Refusal) return error.message;
  const [first] = String(error instanceof Error ? error.message : error).split("\n");
  if (/^timeout/.test(first)) return `decoding it takes longer than ${LONGEST} seconds`;
  return /failOn/.test(first) ? "it is truncated or damaged" : `it is truncated or damaged (${first})`;
};
