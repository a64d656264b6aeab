/**
 * PNG files of label maps: of a palette the indices, not the colours, which is all that matters there and what no
 * decoder of images gives. Greys of 1, 2 and 4 bits are scaled to 8 as PNG defines them; those of 16 bits are numbers,
 * which are kept as they are if they fit into 8.
 *
 * Source: the PNG specification, third edition.
 */
import { crc32, deflateSync, inflateSync } from "node:zlib";
import { expectSize, Refusal } from "./picture.ts";
import { release } from "./release.ts";

export interface PngSamples {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly indexed: boolean; // whether samples are places in a palette
  readonly samples: Uint8Array; // [H, W, channels]
}

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** By colour type. */
const CHANNELS: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const INDEXED = 3;

export const isPng = (bytes: Uint8Array): boolean => SIGNATURE.every((byte, i) => bytes[i] === byte);

/** Reads a PNG of at most 8 bits a channel, or of greys below 256, interlaced or not. Throws a `Refusal`. */
export const readPngSamples = (bytes: Uint8Array): PngSamples => {
  const { header, data } = chunksOf(bytes);
  const { width, height, depth, channels, indexed } = header;
  const passes = header.interlaced ? ADAM7 : WHOLE;
  const rowBytes = (columns: number) => Math.ceil(columns * channels * depth / 8);
  const sizes = passes.map(({ x, y, stepX, stepY }) => ({
    columns: Math.max(0, Math.ceil((width - x) / stepX)),
    rows: Math.max(0, Math.ceil((height - y) / stepY)),
  }));
  const expected = sizes.reduce(
    (sum, { columns, rows }) => sum + (columns === 0 ? 0 : rows * (1 + rowBytes(columns))),
    0,
  );
  const lines = inflated(data, expected);
  const samples = new Uint8Array(width * height * channels);
  const scale = indexed || depth === 16 ? 1 : 255 / (2 ** depth - 1);
  let at = 0;
  passes.forEach(({ x, y, stepX, stepY }, pass) => {
    const { columns, rows } = sizes[pass];
    const length = rowBytes(columns);
    let above: Uint8Array = new Uint8Array(length);
    for (let row = 0; row < rows && columns > 0; row++, at += 1 + length) {
      const line = lines.subarray(at + 1, at + 1 + length);
      unfilter(lines[at], line, above, Math.max(1, channels * depth / 8));
      above = line;
      if (depth === 8 && !header.interlaced) {
        samples.set(line, row * length);
        continue;
      }
      for (let i = 0; i < columns * channels; i++) {
        const column = Math.floor(i / channels);
        const to = ((y + row * stepY) * width + x + column * stepX) * channels + i % channels;
        samples[to] = scale * sampleAt(line, i, depth);
      }
    }
  });
  release(data, lines);
  return { width, height, channels, indexed, samples };
};

const sampleAt = (line: Uint8Array, i: number, depth: number): number => {
  if (depth < 16) {
    const bit = i * depth;
    return line[bit >> 3] >> (8 - depth - (bit & 7)) & (2 ** depth - 1);
  }
  const value = line[2 * i] << 8 | line[2 * i + 1];
  if (value > 255) throw new Refusal(`it has 16 bits a channel and the value ${value}, at most 255 is read`);
  return value;
};

interface Header {
  readonly width: number;
  readonly height: number;
  readonly depth: number; // bits a channel
  readonly channels: number;
  readonly indexed: boolean;
  readonly interlaced: boolean;
}

/** The header, and the compressed samples, which may be spread over several chunks. */
const chunksOf = (bytes: Uint8Array): { readonly header: Header; readonly data: Uint8Array } => {
  if (!isPng(bytes)) throw new Refusal("it is no PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let header: Header | null = null;
  const pieces: Uint8Array[] = [];
  for (let at = SIGNATURE.length; at < bytes.length;) {
    if (at + 12 > bytes.length) throw new Refusal(CUT_SHORT);
    const length = view.getUint32(at);
    const end = at + 8 + length;
    if (end + 4 > bytes.length) throw new Refusal(CUT_SHORT);
    const type = new TextDecoder().decode(bytes.subarray(at + 4, at + 8));
    if (crc32(bytes.subarray(at + 4, end)) !== view.getUint32(end)) {
      throw new Refusal(`it is damaged (the checksum of its chunk ${JSON.stringify(type)} is wrong)`);
    }
    if (type === "IHDR" && length === 13) header = headerOf(view, at + 8);
    if (type === "IDAT") pieces.push(bytes.subarray(at + 8, end));
    if (type === "IEND") break;
    at = end + 4;
  }
  if (header === null) throw new Refusal("it is damaged (it has no header)");
  const data = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let filled = 0;
  for (const piece of pieces) {
    data.set(piece, filled);
    filled += piece.length;
  }
  return { header, data };
};

const CUT_SHORT = "it is truncated or damaged (it ends inside a chunk)";

const headerOf = (view: DataView, at: number): Header => {
  const [width, height] = [view.getUint32(at), view.getUint32(at + 4)];
  const [depth, colorType, , , interlacing] = [8, 9, 10, 11, 12].map((offset) => view.getUint8(at + offset));
  expectSize(width, height);
  const channels = CHANNELS[colorType];
  if (depth === 16 && channels !== undefined && channels > 1) {
    throw new Refusal("it has 16 bits a channel, at most 8 are read");
  }
  const depths = colorType === 0 ? [1, 2, 4, 8, 16] : colorType === INDEXED ? [1, 2, 4, 8] : [8];
  if (channels === undefined || !depths.includes(depth) || interlacing > 1) {
    throw new Refusal(`it is damaged (its header says ${depth} bits of colour type ${colorType})`);
  }
  return { width, height, depth, channels, indexed: colorType === INDEXED, interlaced: interlacing === 1 };
};

interface Pass {
  readonly x: number;
  readonly y: number;
  readonly stepX: number;
  readonly stepY: number;
}

const WHOLE: readonly Pass[] = [{ x: 0, y: 0, stepX: 1, stepY: 1 }];
/** Interlaced files hold an image in seven passes, each a coarse image of its own. */
const ADAM7: readonly Pass[] = [
  { x: 0, y: 0, stepX: 8, stepY: 8 },
  { x: 4, y: 0, stepX: 8, stepY: 8 },
  { x: 0, y: 4, stepX: 4, stepY: 8 },
  { x: 2, y: 0, stepX: 4, stepY: 4 },
  { x: 0, y: 2, stepX: 2, stepY: 4 },
  { x: 1, y: 0, stepX: 2, stepY: 2 },
  { x: 0, y: 1, stepX: 1, stepY: 2 },
];

/** Exactly `expected` bytes; a file of a few bytes can hold gigabytes. */
const inflated = (data: Uint8Array, expected: number): Uint8Array => {
  let bytes: Uint8Array;
  try {
    bytes = inflateSync(data, { maxOutputLength: expected });
  } catch (error) {
    const { code, message } = error as { readonly code?: string; readonly message: string };
    throw new Refusal(
      code === "ERR_BUFFER_TOO_LARGE"
        ? "it is damaged (it holds more samples than its header says)"
        : `it is truncated or damaged (${message})`,
    );
  }
  if (bytes.length < expected) throw new Refusal("it is truncated or damaged (it holds too few samples)");
  return bytes;
};

/** Undoes the filter of a line, in place; `above` is the line before, and `step` the bytes to the pixel on the left. */
const unfilter = (filter: number, line: Uint8Array, above: Uint8Array, step: number): void => {
  if (filter > 4) throw new Refusal(`it is damaged (it has a filter ${filter})`);
  const { length } = line;
  if (filter === 1) {
    for (let i = step; i < length; i++) line[i] += line[i - step];
  } else if (filter === 2) {
    for (let i = 0; i < length; i++) line[i] += above[i];
  } else if (filter === 3) {
    for (let i = 0; i < length; i++) line[i] += (i < step ? 0 : line[i - step]) + above[i] >> 1;
  } else if (filter === 4) {
    for (let i = 0; i < Math.min(step, length); i++) line[i] += above[i];
    for (let i = step; i < length; i++) line[i] += paeth(line[i - step], above[i], above[i - step]);
  }
};

/** Of left, upper and upper left neighbour, the one that is closest to left + up − upper left. */
const paeth = (left: number, up: number, upLeft: number): number => {
  const toLeft = Math.abs(up - upLeft), toUp = Math.abs(left - upLeft);
  const toUpLeft = Math.abs(left + up - 2 * upLeft);
  return toLeft <= toUp && toLeft <= toUpLeft ? left : toUp <= toUpLeft ? up : upLeft;
};

/**
 * A PNG of 8 bits a pixel whose samples, [H, W], are places in a palette of at most 256 colours. The same map gives the
 * same bytes.
 */
export const indexedPng = (
  { width, height, samples }: Pick<PngSamples, "width" | "height" | "samples">,
  palette: readonly (readonly [red: number, green: number, blue: number])[],
): Uint8Array<ArrayBuffer>[] => {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, INDEXED, 0, 0, 0], 8); // depth, colour type, compression, filters, no interlacing
  const lines = new Uint8Array(height * (1 + width)); // each after its filter, none
  for (let y = 0; y < height; y++) {
    lines.set(samples.subarray(y * width, (y + 1) * width), y * (1 + width) + 1);
  }
  return [
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", header),
    chunk("PLTE", Uint8Array.from(palette.flat())),
    chunk("IDAT", deflateSync(lines)),
    chunk("IEND", new Uint8Array()),
  ];
};

const chunk = (type: string, data: Uint8Array): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
};
