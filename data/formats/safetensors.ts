/**
 * The safetensors format: named tensors in one file, without code to execute.
 *
 *     8 bytes   H, unsigned little-endian
 *     H bytes   JSON: { name: { dtype, shape, data_offsets: [begin, end] }, "__metadata__": { key: text } }
 *     the rest  the tensors' values, little-endian, row-major, without gaps; offsets count from here
 *
 * Source: the format's own description in huggingface/safetensors. Every machine that Deno runs on is little-endian.
 */
import { Effect } from "effect";
import { bytesInMemory, type ByteSource } from "../files/byte_source.ts";
import { FormatError, isObject, shown } from "../files/format_error.ts";
import { arrayOver, ARRAYS, type FileTensor, isFileDtype, type StoredTensor } from "./file_tensor.ts";

export interface TensorFile {
  readonly tensors: ReadonlyMap<string, FileTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** A tensor in an open file, and where its values lie in it. */
export interface PlacedTensor extends StoredTensor {
  readonly begin: number;
  readonly end: number; // bytes of the file
}

/** An open file: tensors in the order of their values. */
export interface OpenTensorFile {
  readonly tensors: ReadonlyMap<string, PlacedTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

// What other readers accept at most; a header of a million tensors is smaller.
const LARGEST_HEADER = 100_000_000;

// Objects, lists and names in it: four names and three brackets a tensor. Each may take a hundred bytes of memory.
const MOST_PARTS = 1 << 22;
const MOST_DIMENSIONS = 64;

interface Header {
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: readonly (readonly [name: string, entry: Entry])[];
}

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [begin: number, end: number];
}

/** Checks a header, or says what is wrong with it. */
const headerOf = (value: unknown): Header | string => {
  if (!isPlainObject(value)) {
    return `Expected object, found ${Array.isArray(value) ? "a list" : shown(value)}`;
  }
  const { __metadata__: metadata = {} } = value;
  if (!isPlainObject(metadata) || !Object.values(metadata).every((text) => typeof text === "string")) {
    return '"__metadata__" is no object of texts';
  }
  const entries: [string, Entry][] = [];
  for (const [name, entry] of Object.entries(value)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: offsets } = isPlainObject(entry) ? entry : {};
    if (typeof dtype !== "string") return `tensor ${shown(name)} has no dtype`;
    if (!isSizes(shape) || shape.length > MOST_DIMENSIONS) {
      return `the shape of tensor ${shown(name)} is no list of whole numbers from 0 on`;
    }
    if (!isSizes(offsets) || offsets.length !== 2) {
      return `tensor ${shown(name)} has no data_offsets of begin and end`;
    }
    entries.push([name, { dtype, shape, data_offsets: [offsets[0], offsets[1]] }]);
  }
  return { metadata: metadata as Record<string, string>, entries };
};

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  isObject(value) && !Array.isArray(value);

const isSizes = (value: unknown): value is readonly number[] =>
  Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);

const partsIn = (json: Uint8Array): number => {
  let parts = 0;
  for (const byte of json) if (byte === 0x7b || byte === 0x5b || byte === 0x3a) parts++; // { [ :
  return parts;
};

/** Reads a whole safetensors file from memory. Fails as `openSafetensors` does; errors name `name`. */
export const readSafetensors = Effect.fn("readSafetensors")(
  function* (bytes: Uint8Array, name: string): Effect.fn.Return<TensorFile, FormatError> {
    const { tensors, metadata } = yield* openSafetensors(bytesInMemory(name, bytes));
    const read = new Map<string, FileTensor>();
    for (const [name, { dtype, shape, begin, end }] of tensors) {
      read.set(name, { dtype, shape, data: arrayOver(bytes.subarray(begin, end), dtype) });
    }
    return { tensors: read, metadata };
  },
);

/**
 * Reads the header of a safetensors file; values are read when they are asked for.
 *
 * Fails with a `FormatError` when the header is damaged, a type is unknown, or the tensors do not fill the data
 * exactly: nothing beyond the file's end is ever reserved.
 */
export const openSafetensors = Effect.fn("openSafetensors")(
  function* (source: ByteSource): Effect.fn.Return<OpenTensorFile, FormatError> {
    const { name, size: fileSize } = source;
    const damaged = (reason: string) => new FormatError({ subject: name, reason });

    if (fileSize < 8) {
      return yield* damaged(`it has ${fileSize} bytes, a safetensors file has at least 8`);
    }
    const headerSize = new DataView((yield* source.read(0, 8)).buffer).getBigUint64(0, true);
    if (headerSize > BigInt(LARGEST_HEADER)) {
      return yield* damaged(
        `its first 8 bytes announce a header of ${headerSize} bytes: this is no safetensors file`,
      );
    }
    const dataStart = 8 + Number(headerSize);
    if (dataStart > fileSize) {
      return yield* damaged(
        `it ends inside its header: ${fileSize} bytes where the header needs ${dataStart}`,
      );
    }
    const header = yield* source.read(8, dataStart - 8);
    if (partsIn(header) > MOST_PARTS) {
      return yield* damaged(`its header has more than ${MOST_PARTS} parts, which no model has`);
    }
    const read = headerOf(
      yield* Effect.try({
        try: () => JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(header)) as unknown,
        catch: (error) =>
          damaged(`its header is not JSON in UTF-8 (${shown((error as Error).message).slice(1, -1)})`),
      }),
    );
    if (typeof read === "string") return yield* damaged(`its header is wrong: ${read}`);
    const { metadata, entries } = read;

    const dataSize = fileSize - dataStart;
    const tensors = new Map<string, PlacedTensor>();
    for (const [tensor, { dtype, shape, data_offsets: [begin, end] }] of entries) {
      if (!isFileDtype(dtype)) {
        const known = Object.keys(ARRAYS).join(", ");
        return yield* damaged(
          `tensor ${shown(tensor)} is of type ${shown(dtype).slice(1, -1)}, readable are ${known}`,
        );
      }
      const size = ARRAYS[dtype].BYTES_PER_ELEMENT;
      const needed = shape.reduce((product, length) => product * length, size);
      if (end - begin !== needed) {
        return yield* damaged(
          `tensor ${shown(tensor)} needs ${needed} bytes for ${dtype} [${shape.join(", ")}], ` +
            `its offsets ${begin} to ${end} span ${end - begin}`,
        );
      }
      if (end > dataSize) {
        return yield* damaged(
          `tensor ${shown(tensor)} ends at byte ${end} of the data, the file holds ${dataSize}: ` +
            `it was cut short or is damaged`,
        );
      }
      tensors.set(tensor, {
        dtype,
        shape,
        begin: dataStart + begin,
        end: dataStart + end,
        values: Effect.map(source.read(dataStart + begin, needed), (bytes) => arrayOver(bytes, dtype)),
      });
    }

    // The tensors must tile the data: a hole or an overlap means that the header does not belong to it.
    const ordered = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
    let filled = dataStart;
    const orphans = (begin: number, end: number) =>
      `bytes ${begin - dataStart} to ${end - dataStart} of its data belong to no tensor`;
    for (const [tensor, { begin, end }] of ordered) {
      if (begin < filled) {
        return yield* damaged(
          `tensor ${shown(tensor)} overlaps the one before it at byte ${begin - dataStart}`,
        );
      }
      if (begin > filled) return yield* damaged(orphans(filled, begin));
      filled = end;
    }
    if (filled < fileSize) return yield* damaged(orphans(filled, fileSize));
    return { tensors: new Map(ordered), metadata };
  },
);

/**
 * The bytes of a safetensors file, in pieces to be written one after the other; the tensors' pieces are views, not
 * copies.
 *
 * The same tensors and metadata give the same bytes, in whatever order they come: wide types first, so that every
 * tensor is aligned without gaps, then by name. Throws a `RangeError` when a tensor's values do not fit its shape.
 */
export const writeSafetensors = (
  tensors: ReadonlyMap<string, FileTensor>,
  metadata: Readonly<Record<string, string>> = {},
): readonly Uint8Array<ArrayBuffer>[] => {
  const ordered = [...tensors].sort(([a, x], [b, y]) =>
    y.data.BYTES_PER_ELEMENT - x.data.BYTES_PER_ELEMENT || compareText(a, b)
  );
  const header: Record<string, unknown> = {};
  const keys = Object.keys(metadata).sort(compareText);
  if (keys.length > 0) header.__metadata__ = Object.fromEntries(keys.map((key) => [key, metadata[key]]));

  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let offset = 0;
  for (const [name, { dtype, shape, data }] of ordered) {
    const count = shape.reduce((product, length) => product * length, 1);
    if (count !== data.length || !(data instanceof ARRAYS[dtype])) {
      throw new RangeError(
        `Cannot write tensor "${name}" as ${dtype} [${shape.join(", ")}]: ` +
          `it holds ${data.length} values in a ${data.constructor.name}`,
      );
    }
    header[name] = { dtype, shape, data_offsets: [offset, offset += data.byteLength] };
    pieces.push(new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength));
  }

  const text = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20); // spaces, so that the data is aligned
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  return [head, ...pieces];
};

const compareText = (a: string, b: string) => a < b ? -1 : a > b ? 1 : 0;
