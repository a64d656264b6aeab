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
import { FormatError } from "./format_error.ts";

/** How the values of each type lie in memory. bf16 has no array of its own: its bits come as they are. */
const ARRAYS = {
  F64: Float64Array,
  I64: BigInt64Array,
  F32: Float32Array,
  I32: Int32Array,
  U32: Uint32Array,
  F16: Float16Array,
  BF16: Uint16Array,
  U8: Uint8Array,
} as const;

export type FileDtype = keyof typeof ARRAYS;

/** The values of a tensor: one array type for each `FileDtype`. */
export type FileArray =
  | Float64Array
  | BigInt64Array
  | Float32Array
  | Int32Array
  | Uint32Array
  | Float16Array
  | Uint16Array
  | Uint8Array;

/** A tensor as it lies in a file: row-major values, `data.length` the product of `shape`, `[]` a scalar. */
export interface FileTensor {
  readonly dtype: FileDtype;
  readonly shape: readonly number[];
  readonly data: FileArray;
}

export interface TensorFile {
  readonly tensors: ReadonlyMap<string, FileTensor>;
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

/**
 * Reads a whole safetensors file. The tensors are views over `bytes` where their alignment allows, copies otherwise.
 *
 * Fails with a `FormatError` that names `name` when the header is damaged, a type is unknown, or the tensors do not
 * fill the data exactly: nothing outside `bytes` is ever touched.
 */
export const readSafetensors = Effect.fn("readSafetensors")(
  function* (bytes: Uint8Array, name: string): Effect.fn.Return<TensorFile, FormatError> {
    const damaged = (reason: string) => new FormatError({ file: name, reason });

    if (bytes.length < 8) {
      return yield* damaged(`it has ${bytes.length} bytes, a safetensors file has at least 8`);
    }
    const headerSize = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
    if (headerSize > BigInt(LARGEST_HEADER)) {
      return yield* damaged(
        `its first 8 bytes announce a header of ${headerSize} bytes: this is no safetensors file`,
      );
    }
    const dataStart = 8 + Number(headerSize);
    if (dataStart > bytes.length) {
      return yield* damaged(
        `it ends inside its header: ${bytes.length} bytes where the header needs ${dataStart}`,
      );
    }
    const { __metadata__: metadata = {}, ...entries } = yield* Effect.try({
      try: () => JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, dataStart))),
      catch: (error) => damaged(`its header is not JSON in UTF-8 (${(error as Error).message})`),
    }).pipe(
      Effect.flatMap(decodeHeader),
      Effect.catchTag("SchemaError", (error) => damaged(`its header is wrong: ${oneLine(error.message)}`)),
    );

    const data = bytes.subarray(dataStart);
    const tensors = new Map<string, FileTensor>();
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
      if (end > data.length) {
        return yield* damaged(
          `tensor "${tensor}" ends at byte ${end} of the data, the file holds ${data.length}: ` +
            `it was cut short or is damaged`,
        );
      }
      tensors.set(tensor, { dtype, shape, data: arrayOver(data.subarray(begin, end), dtype) });
    }

    // The tensors must tile the data: a hole or an overlap means that the header does not belong to it.
    let filled = 0;
    const extents = Object.entries(entries).map(([tensor, { data_offsets }]) => ({ tensor, data_offsets }));
    extents.sort((a, b) => a.data_offsets[0] - b.data_offsets[0] || a.data_offsets[1] - b.data_offsets[1]);
    for (const { tensor, data_offsets: [begin, end] } of extents) {
      if (begin < filled) {
        return yield* damaged(`tensor "${tensor}" overlaps the one before it at byte ${begin}`);
      }
      if (begin > filled) {
        return yield* damaged(`bytes ${filled} to ${begin} of its data belong to no tensor`);
      }
      filled = end;
    }
    if (filled < data.length) {
      return yield* damaged(`bytes ${filled} to ${data.length} of its data belong to no tensor`);
    }
    return { tensors, metadata };
  },
);

const isFileDtype = (dtype: string): dtype is FileDtype => Object.hasOwn(ARRAYS, dtype);

const arrayOver = (bytes: Uint8Array, dtype: FileDtype): FileArray => {
  const array = ARRAYS[dtype];
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % array.BYTES_PER_ELEMENT === 0
    ? bytes
    : bytes.slice();
  return new array(buffer as ArrayBuffer, byteOffset, byteLength / array.BYTES_PER_ELEMENT);
};

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
