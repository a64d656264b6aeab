/** Tensors as they lie in files, whatever the format. */
import type { Effect } from "effect";
import type { FormatError } from "../files/format_error.ts";

/** How the values of each type lie in memory. bf16 has no array of its own: its bits come as they are. */
export const ARRAYS = {
  F64: Float64Array,
  I64: BigInt64Array,
  F32: Float32Array,
  I32: Int32Array,
  U32: Uint32Array,
  F16: Float16Array,
  BF16: Uint16Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array, // 0 or 1
} as const satisfies Record<FileDtype, unknown>;

/** The name of an element type, as safetensors has it. */
export type FileDtype = "F64" | "I64" | "F32" | "I32" | "U32" | "F16" | "BF16" | "I16" | "I8" | "U8" | "BOOL";

/** The values of a tensor: one array type for each `FileDtype`. */
export type FileArray =
  | Float64Array
  | BigInt64Array
  | Float32Array
  | Int32Array
  | Uint32Array
  | Float16Array
  | Uint16Array
  | Int16Array
  | Int8Array
  | Uint8Array;

/** A tensor in memory: row-major values, `data.length` the product of `shape`, `[]` a scalar. */
export interface FileTensor {
  /** The type of its elements. */
  readonly dtype: FileDtype;
  /** Sizes of the axes, slowest first. */
  readonly shape: readonly number[];
  /** The values, in the array of that type. */
  readonly data: FileArray;
}

/** A tensor in a file that is open: its values are read when they are asked for, each time anew. */
export interface StoredTensor {
  /** The type of its elements. */
  readonly dtype: FileDtype;
  /** Sizes of the axes, slowest first. */
  readonly shape: readonly number[];
  /** Reads the values, row-major. Fails with a `FormatError` where the file is damaged. */
  readonly values: Effect.Effect<FileArray, FormatError>;
}

export const isFileDtype = (dtype: string): dtype is FileDtype => Object.hasOwn(ARRAYS, dtype);

/** Little-endian bytes as values. The array lies over `bytes` where their alignment allows, over a copy otherwise. */
export const arrayOver = (bytes: Uint8Array, dtype: FileDtype): FileArray => {
  const array = ARRAYS[dtype];
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % array.BYTES_PER_ELEMENT === 0
    ? bytes
    : bytes.slice();
  return new array(buffer as ArrayBuffer, byteOffset, byteLength / array.BYTES_PER_ELEMENT);
};

/** Values of any type as 32-bit floats; those that are already are not copied. 64-bit ones are rounded. */
export const widened = (dtype: FileDtype, data: FileArray): Float32Array => {
  if (data instanceof Float32Array) return data;
  if (dtype !== "BF16") return Float32Array.from(data as ArrayLike<number | bigint>, Number);
  return new Float32Array(Uint32Array.from(data as Uint16Array, (bits) => bits << 16).buffer);
};
