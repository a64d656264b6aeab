/**
 * The first frame of a GIF as Pillow reads it, which no decoder of RGBA tells: a transparent pixel has its palette's
 * colour, and where the frame does not reach, the image has the colour of the transparent index, or of index 0.
 *
 * Source: the GIF89a specification; for palettes that are missing or too short, Pillow's `GifImagePlugin`.
 */
import { expectSize, type Picture, Refusal } from "./picture.ts";

const IMAGE = 0x2c, EXTENSION = 0x21, TRAILER = 0x3b, GRAPHIC_CONTROL = 0xf9;
const HAS_PALETTE = 0x80, INTERLACED = 0x40;

/** Decodes the first frame. Fails with a `Refusal`. */
export const decodeGif = (bytes: Uint8Array): Picture => {
  const { screen, frame, transparent, palette, data } = firstFrame(bytes);
  const [width, height] = [
    Math.max(screen.width, frame.left + frame.width),
    Math.max(screen.height, frame.top + frame.height),
  ];
  expectSize(width, height);
  expectSize(frame.width, frame.height);
  const indices = decompressed(bytes, data, frame.width * frame.height);

  const rgb = new Uint8Array(width * height * 3);
  const background = colorOf(palette, transparent ?? 0);
  if (background.some((value) => value > 0) && (frame.width < width || frame.height < height)) {
    for (let i = 0; i < rgb.length; i++) rgb[i] = background[i % 3];
  }
  const colors = Array.from({ length: 256 }, (_, index) => colorOf(palette, index));
  for (const [row, from] of rowsInFile(frame).entries()) {
    let at = 3 * ((frame.top + row) * width + frame.left);
    for (let i = from * frame.width; i < (from + 1) * frame.width; i++, at += 3) {
      const color = colors[indices[i]];
      [rgb[at], rgb[at + 1], rgb[at + 2]] = color;
    }
  }
  return { width, height, rgb };
};

interface Frame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly interlaced: boolean;
}

/** What precedes the pixels of the first frame, which begin at byte `data`. */
const firstFrame = (bytes: Uint8Array) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const take = (length: number): number => {
    if (at + length > bytes.length) {
      throw new Refusal("it is truncated or damaged (it ends before its first frame)");
    }
    at += length;
    return at - length;
  };
  const paletteOf = (flags: number): Uint8Array | null => {
    if ((flags & HAS_PALETTE) === 0) return null;
    const length = 3 << ((flags & 7) + 1);
    const from = take(length);
    const palette = bytes.subarray(from, from + length);
    return isGreyRamp(palette) ? null : palette;
  };

  take(13);
  const screen = { width: view.getUint16(6, true), height: view.getUint16(8, true) };
  const shared = paletteOf(bytes[10]);
  let transparent: number | null = null;
  for (;;) {
    const block = bytes[take(1)];
    if (block === TRAILER) throw new Refusal("it has no frame");
    if (block === EXTENSION) {
      const label = bytes[take(1)];
      for (let first = true, length: number; (length = bytes[take(1)]) > 0; first = false) {
        const from = take(length);
        const given = label === GRAPHIC_CONTROL && first && length >= 4 && (bytes[from] & 1) === 1;
        if (given) transparent = bytes[from + 3];
      }
    } else if (block === IMAGE) {
      const from = take(9);
      const [left, top, width, height] = [0, 2, 4, 6].map((offset) => view.getUint16(from + offset, true));
      const flags = bytes[from + 8];
      const palette = paletteOf(flags) ?? shared;
      const frame: Frame = { left, top, width, height, interlaced: (flags & INTERLACED) !== 0 };
      return { screen, frame, transparent, palette, data: at };
    }
    // Any other byte is passed over.
  }
};

/** A palette whose colours are the greys of their own places is none: Pillow reads such a GIF as a grey image. */
const isGreyRamp = (palette: Uint8Array): boolean => palette.every((value, i) => value === Math.floor(i / 3));

/** The colour of an index: beyond the palette, and without one, the grey of that number. */
const colorOf = (palette: Uint8Array | null, index: number): readonly number[] =>
  palette !== null && 3 * index < palette.length
    ? [palette[3 * index], palette[3 * index + 1], palette[3 * index + 2]]
    : [index, index, index];

/**
 * Which row of the file each row of the frame is: interlaced, every 8th from 0 and 4, every 4th from 2, every 2nd from
 * 1.
 */
const rowsInFile = ({ height, interlaced }: Frame): number[] => {
  const rows = Array.from({ length: height }, (_, row) => row);
  if (!interlaced) return rows;
  const written = [[0, 8], [4, 8], [2, 4], [1, 2]]
    .flatMap(([first, step]) => rows.filter((row) => row >= first && (row - first) % step === 0));
  written.forEach((row, place) => rows[row] = place);
  return rows;
};

const MOST_CODES = 1 << 12;

/**
 * Undoes the compression (LZW, codes of 3 to 12 bits, lowest bit first) of the blocks from `at` on, for `count`
 * indices. Fails with a `Refusal` where there are fewer.
 */
const decompressed = (bytes: Uint8Array, at: number, count: number): Uint8Array => {
  const damaged = () => new Refusal("it is truncated or damaged (its first frame is not whole)");
  const literalBits = bytes[at++];
  if (!(literalBits >= 1 && literalBits <= 11)) throw damaged();
  const clear = 1 << literalBits, end = clear + 1;
  // A code beyond `end` stands for the indices of the code `prefix`, followed by the index `last`.
  const prefix = new Uint16Array(MOST_CODES), last = new Uint8Array(MOST_CODES);
  const length = new Uint32Array(MOST_CODES).fill(1, 0, clear), first = new Uint8Array(MOST_CODES);
  for (let code = 0; code < clear; code++) first[code] = last[code] = code;

  const indices = new Uint8Array(count);
  let filled = 0, next = end + 1, width = literalBits + 1, before = -1;
  let bits = 0, held = 0, left = 0; // held bits, and bytes left in the block
  while (filled < count) {
    while (held < width) {
      if (left === 0) {
        left = bytes[at++];
        if (!(left > 0)) throw damaged();
      }
      if (at >= bytes.length) throw damaged();
      bits |= bytes[at++] << held;
      held += 8;
      left--;
    }
    const code = bits & ((1 << width) - 1);
    bits >>>= width;
    held -= width;

    if (code === clear) {
      [next, width, before] = [end + 1, literalBits + 1, -1];
      continue;
    }
    if (code === end || code > next || (code === next && before < 0) || (before < 0 && code >= clear)) {
      throw damaged();
    }
    if (before >= 0 && next < MOST_CODES) {
      prefix[next] = before;
      first[next] = first[before];
      last[next] = code === next ? first[before] : first[code];
      length[next] = length[before] + 1;
      next++;
      if (next === 1 << width && width < 12) width++;
    } else if (code >= next) throw damaged();
    let place = filled + length[code] - 1; // written from its end
    for (let each = code, rest = length[code]; rest > 0; rest--, each = prefix[each]) {
      if (place < count) indices[place] = last[each];
      place--;
    }
    filled += length[code];
    before = code;
  }
  return indices;
};
