/**
 * TIFF files in the kinds that Pillow reads, made plain for libtiff: a copy of the file whose directory has the tags of
 * the first image's pixels and no others. So neither later pages nor private tags are looked at, and pixels that
 * libvips would convert in its own way come as they are written.
 *
 * Source: TIFF 6.0, BigTIFF; for the kinds, Pillow's `TiffImagePlugin`.
 */
import { expectSize, Refusal } from "./picture.ts";

export interface PlainTiff {
  readonly bytes: Uint8Array;
  readonly pixels: TiffPixels;
  /** Pillow turns an image by this tag, 1 to 8. */
  readonly orientation: number;
  /** Of indices: the largest one, and red, green and blue of each, one channel after the other, 16 bits. */
  readonly palette: { readonly largest: number; readonly values: readonly number[] } | null;
}

/**
 * What the plain file holds: RGB or greys that need nothing more, 16-bit greys, inks of 8 bits, inks of 16 bits that
 * are declared as RGB and alpha, greys that are indices, or RGB of 8 or 16 bits that was multiplied by the alpha beside
 * it.
 */
export type TiffPixels =
  | "ready"
  | "grey16"
  | "cmyk"
  | "cmyk16"
  | "indices"
  | "premultiplied8"
  | "premultiplied16";

const TAG = {
  width: 256,
  height: 257,
  bits: 258,
  compression: 259,
  photometric: 262,
  stripOffsets: 273,
  orientation: 274,
  samples: 277,
  stripBytes: 279,
  planar: 284,
  palette: 320,
  tileWidth: 322,
  tileHeight: 323,
  tileOffsets: 324,
  tileBytes: 325,
  extra: 338,
  format: 339,
} as const;

/** Tags of pixels besides: fill order, rows a strip, options of fax codes, predictor, JPEG's tables, subsampling. */
const OTHERS = [266, 278, 292, 293, 317, 347, 530];

/**
 * Bytes of a value by its type: bytes, SHORT, LONG, UNDEFINED, IFD, LONG8, IFD8. Tags of other types are not needed.
 */
const TYPE_BYTES: Readonly<Record<number, number>> = { 1: 1, 3: 2, 4: 4, 7: 1, 13: 4, 16: 8, 18: 8 };
const MOST_VALUES = 1 << 21; // tiles of 16 x 16 in the largest image, in three planes

const NONE = 1, JPEG = 7;
/** None, fax codes, LZW, JPEG, Deflate, PackBits, WebP. */
const COMPRESSIONS = [NONE, 2, 3, 4, 5, JPEG, 8, 32773, 32946, 50001];

interface Entry {
  readonly type: number;
  readonly values: readonly number[];
}

interface Directory {
  readonly littleEndian: boolean;
  readonly entries: ReadonlyMap<number, Entry>;
}

/** Reads the tags of the first image and makes its file plain. Throws a `Refusal`. */
export const plainTiff = (bytes: Uint8Array): PlainTiff => {
  const directory = readDirectory(bytes);
  const valuesOf = (tag: number): readonly number[] => directory.entries.get(tag)?.values ?? [];
  const [width = 0] = valuesOf(TAG.width), [height = 0] = valuesOf(TAG.height);
  expectSize(width, height);
  const isTiled = directory.entries.has(TAG.tileOffsets);
  const sizes = valuesOf(isTiled ? TAG.tileBytes : TAG.stripBytes);
  const isWhole = valuesOf(isTiled ? TAG.tileOffsets : TAG.stripOffsets)
    .every((offset, i) => offset + (sizes[i] ?? 0) <= bytes.length);
  if (!isWhole) throw new Refusal(`${DAMAGED} (it ends before its pixels)`);
  const [compression = NONE] = valuesOf(TAG.compression);
  if (!COMPRESSIONS.includes(compression)) {
    throw new Refusal(`its pixels are compressed by TIFF's method ${compression}, which is not read`);
  }
  if (isTiled) expectSize(valuesOf(TAG.tileWidth)[0] ?? 0, valuesOf(TAG.tileHeight)[0] ?? 0);

  const kind = pixelsOf({
    photometric: valuesOf(TAG.photometric)[0] ?? -1,
    bits: valuesOf(TAG.bits).length === 0 ? [1] : valuesOf(TAG.bits),
    formats: valuesOf(TAG.format),
    samples: valuesOf(TAG.samples)[0] ?? 1,
    extra: valuesOf(TAG.extra),
    isPlanar: valuesOf(TAG.planar)[0] === 2,
    isTiled,
    compression,
    littleEndian: directory.littleEndian,
  });
  const { pixels, change } = kind;
  const entries = new Map(
    [...directory.entries].filter(([tag]) => tag !== TAG.orientation && tag !== TAG.palette),
  );
  for (const [tag, values] of Object.entries(change)) entries.set(Number(tag), { type: 3, values });
  const largest = 2 ** valuesOf(TAG.bits)[0] - 1;
  const palette = valuesOf(TAG.palette);
  if (pixels === "indices" && palette.length < 3 * (largest + 1)) {
    throw new Refusal("it is damaged (its palette is too short)");
  }
  return {
    bytes: withDirectory(bytes, { ...directory, entries }),
    pixels,
    orientation: valuesOf(TAG.orientation)[0] ?? 1,
    palette: pixels === "indices" ? { largest, values: palette } : null,
  };
};

interface Layout {
  readonly photometric: number;
  readonly bits: readonly number[];
  readonly formats: readonly number[]; // 1 unsigned, 2 signed, 3 floating point
  readonly samples: number;
  readonly extra: readonly number[]; // 0 of no meaning, 1 alpha that colours were multiplied by, 2 alpha
  readonly isPlanar: boolean;
  readonly isTiled: boolean;
  readonly compression: number;
  readonly littleEndian: boolean;
}

const WHITE_IS_ZERO = 0, BLACK_IS_ZERO = 1, RGB = 2, PALETTE = 3, INKS = 5, YCBCR = 6;

/** What the pixels are, and the tags that have to be changed so that they come as they are written. */
const pixelsOf = (
  layout: Layout,
): { readonly pixels: TiffPixels; readonly change: Readonly<Record<number, number[]>> } => {
  const { photometric, bits, formats, samples, isPlanar, isTiled, compression, littleEndian } = layout;
  const [depth] = bits;
  const refused = new Refusal(
    `its pixels are of a kind that is not read: ${samples} x ${
      bits.join("/")
    } bits, photometric ${photometric}` +
      `${formats.some((format) => format !== 1) ? `, format ${formats.join("/")}` : ""}` +
      `${isPlanar ? ", in planes" : ""}`,
  );
  const uniform = bits.every((each) => each === depth) && formats.every((each) => each === formats[0]);
  const [format = 1] = formats;
  // Pillow takes the bytes of planes of 16 bits for something else.
  const isMisread = isPlanar && depth === 16 && compression === NONE;
  if (!uniform || isPlanar && samples > 1 && (isTiled || isMisread)) throw refused;
  const colors = photometric === RGB || photometric === YCBCR ? 3 : photometric === INKS ? 4 : 1;
  const extra = layout.extra.length > 0 ? layout.extra : Array(Math.max(0, samples - colors)).fill(2);
  if (samples !== colors + extra.length) throw refused;
  const isUnsigned = format === 1;
  const isByte = depth === 8 && isUnsigned, isShort = depth === 16 && isUnsigned;

  switch (photometric) {
    case WHITE_IS_ZERO:
    case BLACK_IS_ZERO:
      if (isByte && samples === 2 && extra[0] !== 1) return { pixels: "ready", change: {} };
      if (samples !== 1) throw refused;
      if (isUnsigned && [1, 2, 4, 8].includes(depth)) return { pixels: "ready", change: {} };
      // Pillow does not invert 16 bits, and sees only the other order of bytes where they are inverted.
      if (isShort && (photometric === BLACK_IS_ZERO || littleEndian)) {
        return { pixels: "grey16", change: { [TAG.photometric]: [BLACK_IS_ZERO] } };
      }
      // Numbers beyond 0 to 255 are clipped; Pillow mistakes the order of bytes of those that are big-endian and
      // compressed.
      if (compression !== NONE && !littleEndian) throw refused;
      if (format === 3 && depth === 32) return { pixels: "ready", change: {} };
      if (photometric === BLACK_IS_ZERO && format === 2 && depth === 16) {
        return { pixels: "grey16", change: {} };
      }
      if (photometric === BLACK_IS_ZERO && depth === 32 && (format === 2 || littleEndian)) {
        return { pixels: "ready", change: {} };
      }
      throw refused;
    case RGB:
      if (!isByte && !(isShort && samples <= 4) || isPlanar && extra[0] === 1) throw refused;
      // Where nothing is said of a channel beyond three, libtiff would warn.
      if (extra[0] !== 1) {
        return { pixels: "ready", change: extra.length > 0 ? { [TAG.extra]: [...extra] } : {} };
      }
      return {
        pixels: isByte ? "premultiplied8" : "premultiplied16",
        change: { [TAG.extra]: extra.map((_, i) => i === 0 ? 2 : 0) },
      };
    case PALETTE: {
      const isRead = isUnsigned &&
        ([1, 2, 4].includes(depth) && samples === 1 || depth === 8 && samples <= 2);
      if (!isRead) throw refused;
      return { pixels: "indices", change: { [TAG.photometric]: [BLACK_IS_ZERO] } };
    }
    case INKS:
      if (isByte && extra.every((each) => each === 0)) return { pixels: "cmyk", change: {} };
      if (!isShort || samples !== 4) throw refused;
      return { pixels: "cmyk16", change: { [TAG.photometric]: [RGB], [TAG.extra]: [0] } };
    case YCBCR:
      if (!isByte || samples !== 3 || compression !== JPEG) throw refused;
      return { pixels: "ready", change: {} };
    default:
      throw refused;
  }
};

const DAMAGED = "it is truncated or damaged";

const readDirectory = (bytes: Uint8Array): Directory => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const littleEndian = bytes[0] === 0x49;
  const inFile = (at: number, length: number): number => {
    if (!(at >= 0 && length >= 0 && at + length <= bytes.length)) throw new Refusal(DAMAGED);
    return at;
  };
  const number = (at: number, length: number): number => {
    inFile(at, length);
    if (length === 1) return view.getUint8(at);
    if (length === 2) return view.getUint16(at, littleEndian);
    if (length === 4) return view.getUint32(at, littleEndian);
    return Number(view.getBigUint64(at, littleEndian));
  };

  const isBig = number(2, 2) === 43;
  const word = isBig ? 8 : 4; // of offsets and counts
  const start = number(isBig ? 8 : 4, word);
  const count = number(start, isBig ? 8 : 2);
  const first = start + (isBig ? 8 : 2);
  inFile(first, count * (4 + 2 * word));
  const wanted = new Set<number>([...Object.values(TAG), ...OTHERS]);
  const entries = new Map<number, Entry>();
  for (let i = 0; i < count; i++) {
    const at = first + i * (4 + 2 * word);
    const tag = number(at, 2), type = number(at + 2, 2), length = number(at + 4, word);
    const size = TYPE_BYTES[type];
    if (!wanted.has(tag) || size === undefined || entries.has(tag)) continue;
    if (length > MOST_VALUES) throw new Refusal(`${DAMAGED} (its tag ${tag} has ${length} values)`);
    const from = size * length <= word ? at + 4 + word : number(at + 4 + word, word);
    inFile(from, size * length);
    entries.set(tag, { type, values: Array.from({ length }, (_, j) => number(from + j * size, size)) });
  }
  return { littleEndian, entries };
};

/** A copy of a file with this directory behind it, and no other; 64-bit offsets become 32-bit ones. */
const withDirectory = (bytes: Uint8Array, { littleEndian, entries }: Directory): Uint8Array => {
  const tags = [...entries.keys()].sort((a, b) => a - b);
  const even = (size: number) => size + size % 2;
  const narrow = (type: number) => TYPE_BYTES[type] > 4 || type === 13 ? 4 : type;
  const sizeOf = ({ type, values }: Entry) => TYPE_BYTES[narrow(type)] * values.length;
  const start = even(bytes.length);
  const behind = start + 2 + 12 * tags.length + 4;
  const total = tags.reduce((sum, tag) => sum + even(Math.max(0, sizeOf(entries.get(tag)!))), behind);
  const file = new Uint8Array(total);
  file.set(bytes);
  const view = new DataView(file.buffer);
  view.setUint16(2, 42, littleEndian);
  view.setUint32(4, start, littleEndian);
  view.setUint16(start, tags.length, littleEndian);
  let free = behind;
  tags.forEach((tag, i) => {
    const entry = entries.get(tag)!;
    const type = narrow(entry.type), size = TYPE_BYTES[type];
    const at = start + 2 + 12 * i;
    view.setUint16(at, tag, littleEndian);
    view.setUint16(at + 2, type, littleEndian);
    view.setUint32(at + 4, entry.values.length, littleEndian);
    let to = at + 8;
    if (sizeOf(entry) > 4) {
      view.setUint32(at + 8, free, littleEndian);
      to = free;
      free += even(sizeOf(entry));
    }
    entry.values.forEach((value, j) => {
      if (value > 2 ** (8 * size) - 1) throw new Refusal(`${DAMAGED} (its tag ${tag} is ${value})`);
      if (size === 1) view.setUint8(to + j, value);
      else if (size === 2) view.setUint16(to + 2 * j, value, littleEndian);
      else view.setUint32(to + 4 * j, value, littleEndian);
    });
  });
  return file;
};
