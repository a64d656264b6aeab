/**
 * The safetensors format: named tensors in one file, without code to execute.
 *
 *     8 bytes   H, unsigned little-endian
 *     H bytes   JSON: { name: { dtype, shape, data_offsets: [begin, end] }, "__metadata__": { key: text } }
 *     the rest  the tensors' values, little-endian, row-major, without gaps; offsets count from here
 *
 * Source: the format's own description in huggingface/safetensors. Every machine that Deno runs on is little-endian.
 */
import { Effect, Schema } from "effect";
import { bytesInMemory, type ByteSource } from "../files/byte_source.ts";
import { FormatError } from "../files/format_error.ts";
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

const Size = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0));
const Header = Schema.StructWithRest(
  Schema.Struct({ __metadata__: Schema.optional(Schema.Record(Schema.String, Schema.String)) }),
  [Schema.Record(
    Schema.String.check(Schema.isPattern(/^(?!__metadata__$)/)),
    Schema.Struct({
      dtype: Schema.String,
      shape: Schema.Array(Size),
      data_offsets: Schema.Tuple([Size, Size]),
    }),
  )],
);
const decodeHeader = Schema.decodeUnknownEffect(Header);

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
 * Fails with a `FormatError` when the header is damaged, a type is unknown, or the tensors do not fill the data exactly:
 * nothing beyond the file's end is ever reserved.
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
    const { __metadata__: metadata = {}, ...entries } = yield* Effect.try({
      try: () => JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(header)),
      catch: (error) => damaged(`its header is not JSON in UTF-8 (${(error as Error).message})`),
    }).pipe(
      Effect.flatMap(decodeHeader),
      Effect.catchTag("SchemaError", (error) => damaged(`its header is wrong: ${oneLine(error.message)}`)),
    );

    const dataSize = fileSize - dataStart;
    const tensors = new Map<string, PlacedTensor>();
    for (const [tensor, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(entries)) {
      if (!isFileDtype(dtype)) {
        const known = Object.keys(ARRAYS).join(", ");
        return yield* damaged(`tensor "${tensor}" is of type ${dtype}, readable are ${known}`);
      }
      const size = ARRAYS[dtype].BYTES_PER_ELEMENT;
      const needed = shape.reduce((product, length) => product * length, size);
      if (end - begin !== needed) {
        return yield* damaged(
          `tensor "${tensor}" needs ${needed} bytes for ${dtype} [${shape.join(", ")}], ` +
            `its offsets ${begin} to ${end} span ${end - begin}`,
        );
      }
      if (end > dataSize) {
        return yield* damaged(
          `tensor "${tensor}" ends at byte ${end} of the data, the file holds ${dataSize}: ` +
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
        return yield* damaged(`tensor "${tensor}" overlaps the one before it at byte ${begin - dataStart}`);
      }
      if (begin > filled) return yield* damaged(orphans(filled, begin));
      filled = end;
    }
    if (filled < fileSize) return yield* damaged(orphans(filled, fileSize));
    return { tensors: new Map(ordered), metadata };
  },
);

const oneLine = (text: string) => text.replace(/\s*\n\s*/g, " ");

/**
 * The bytes of a safetensors file, in pieces to be written one after the other; the tensors' pieces are views, not copies.
 *
 * The same tensors and metadata give the same bytes, in whatever order they come: wide types first, so that every tensor
 * is aligned without gaps, then by name. Throws a `RangeError` when a tensor's values do not fit its shape.
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
