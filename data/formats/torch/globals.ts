/** What the names in the pickles of PyTorch and NumPy stand for: an allow-list. */
import { Buffer } from "node:buffer";
import { Effect } from "effect";
import type { ByteSource } from "../../files/byte_source.ts";
import { shown } from "../../files/format_error.ts";
import { arrayOver, ARRAYS, type FileDtype, type StoredTensor } from "../file_tensor.ts";
import { BytesInFile, OrderedDict, refuse, type Unpickling, whole } from "../pickle/values.ts";
import {
  Namespace,
  naturals,
  rowMajor,
  type Storage,
  swapBytes,
  TensorInFile,
  type TorchValue,
} from "./stored_tensor.ts";

const STORAGES: Readonly<Record<string, FileDtype>> = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
  UntypedStorage: "U8",
};

class StorageType {
  constructor(readonly dtype: FileDtype) {}
}

const NUMPY_TYPES: ReadonlyMap<unknown, FileDtype> = new Map([
  ...([["f8", "F64"], ["f4", "F32"], ["f2", "F16"], ["i8", "I64"], ["i4", "I32"], ["u4", "U32"]] as const),
  ...([["i2", "I16"], ["i1", "I8"], ["u1", "U8"], ["b1", "BOOL"]] as const),
]);

/** A `numpy.dtype`; its state says in which order the bytes lie. */
class NumpyType {
  swapped = false;
  constructor(readonly dtype: FileDtype) {}
}

const ndarray = {}; // the class, which pickles only name

/** What the names in the pickles of PyTorch and NumPy stand for. `storageOf` finds the storages of a PyTorch file. */
export const meaning = (
  source: ByteSource,
  storageOf: (key: string, dtype: FileDtype, length: number) => Storage = () =>
    refuse("it refers to a storage outside of its pickle"),
): Unpickling<StoredTensor> => {
  /** The storage of a NumPy array: bytes in the pickle. */
  const inPickle = ({ dtype, swapped }: NumpyType, data: unknown): Storage => {
    const bytes = data instanceof BytesInFile ? data : bytesOf(data);
    const length = bytes.length / ARRAYS[dtype].BYTES_PER_ELEMENT;
    const read = (begin: number, end: number) =>
      bytes instanceof BytesInFile
        ? source.read(bytes.offset + begin, end - begin)
        : Effect.sync(() => bytes.slice(begin, end));
    return { dtype, length, swapped, read };
  };

  const fillArray = (
    array: TensorInFile,
    type: unknown,
    sizes: unknown,
    columnMajor: boolean,
    data: unknown,
  ) => {
    if (!(type instanceof NumpyType)) return refuse("it has an array without a type");
    const storage = inPickle(type, data);
    const shape = naturals(sizes);
    const count = shape.reduce((product, size) => product * size, 1);
    if (count !== storage.length) {
      const size = ARRAYS[type.dtype].BYTES_PER_ELEMENT;
      refuse(
        `it has an array ${type.dtype} [${shape.join(", ")}] of ${storage.length * size} bytes, ` +
          `${count * size} are expected`,
      );
    }
    const strides = columnMajor ? rowMajor(shape.toReversed()).reverse() : rowMajor(shape);
    return array.fill(storage, 0, shape, strides);
  };

  return {
    globals: new Map([
      ...PYTHON,
      ...TORCH,
      ...["numpy.core", "numpy._core"].flatMap((numpy): [string, unknown][] => [
        [
          `${numpy}.multiarray._reconstruct`,
          ([type]: unknown[]) =>
            type === ndarray ? new TensorInFile() : refuse("it has an array of a class of its own"),
        ],
        [`${numpy}.multiarray.scalar`, numpyScalar],
        [
          `${numpy}.numeric._frombuffer`,
          ([data, type, shape, order]: unknown[]) =>
            fillArray(new TensorInFile(), type, shape, order === "F", data),
        ],
      ]),
      ["numpy.ndarray", ndarray],
      ["numpy.dtype", ([name]: unknown[]) => {
        const dtype = NUMPY_TYPES.get(name);
        if (dtype !== undefined) return new NumpyType(dtype);
        const known = [...NUMPY_TYPES.keys()].join(", ");
        return refuse(`it has an array of NumPy's type ${shown(name)}, readable are ${known}`);
      }],
    ]),

    persistent: (id) => {
      const [kind, type, key, , length, view] = Array.isArray(id) ? id : [];
      if (kind !== "storage" || !(type instanceof StorageType) || typeof key !== "string") {
        return refuse(`it refers to ${shown(kind)}, which is no storage`);
      }
      if (view !== undefined && view !== null) {
        refuse("it has a storage that is part of another: save it anew");
      }
      return storageOf(key, type.dtype, naturals([length])[0]);
    },

    setState: (value, state) => {
      if (value instanceof OrderedDict && state instanceof Map) return; // such as the versions of modules
      if (value instanceof Namespace && state instanceof Map) {
        for (const [name, item] of state) value.set(name, item);
      } else if (value instanceof NumpyType && Array.isArray(state)) {
        value.swapped = state[1] === ">";
      } else if (value instanceof TensorInFile && Array.isArray(state) && state.length === 5) {
        const [, shape, type, columnMajor, data] = state;
        fillArray(value, type, shape, columnMajor === true, data);
      } else refuse("it sets the state of an object that has none");
    },

    isLeaf: (value, path): value is StoredTensor => {
      if (!(value instanceof TensorInFile) || value.values === undefined) return false;
      value.name = path();
      return true;
    },
  };
};

/** A number of NumPy. */
const numpyScalar = ([type, data]: unknown[]): TorchValue => {
  if (!(type instanceof NumpyType)) return refuse("it has a number without a type");
  const bytes = bytesOf(data).slice();
  const size = ARRAYS[type.dtype].BYTES_PER_ELEMENT;
  if (bytes.length !== size) refuse(`it has a number ${type.dtype} of ${bytes.length} bytes`);
  if (type.swapped) swapBytes(bytes, size);
  const [value] = arrayOver(bytes, type.dtype);
  return type.dtype === "BOOL" ? value !== 0 : typeof value === "bigint" ? whole(value) : value;
};

/** Bytes, which older pickles hold as text. */
const bytesOf = (value: unknown): Uint8Array<ArrayBuffer> => {
  if (value instanceof Uint8Array) return value as Uint8Array<ArrayBuffer>;
  if (typeof value !== "string" || /[^\0-\xff]/.test(value)) return refuse("it has bytes that are no bytes");
  return new Uint8Array(Buffer.from(value, "latin1"));
};

const tensor = ([storage, offset, shape, strides]: unknown[]): TensorInFile =>
  isStorage(storage)
    ? new TensorInFile().fill(storage, offset, shape, strides)
    : refuse("it has a tensor without a storage");

const isStorage = (value: unknown): value is Storage =>
  typeof value === "object" && value !== null && "read" in value;

const parameter = ([tensor]: unknown[]) =>
  tensor instanceof TensorInFile ? tensor : refuse("it has a parameter without a tensor");

const TORCH: readonly (readonly [string, unknown])[] = [
  ["torch._utils._rebuild_tensor", tensor],
  ["torch._utils._rebuild_tensor_v2", (given: unknown[]) => {
    const flags = given[6]; // whether its values are to be negated or conjugated first
    if (flags instanceof Map && [...flags.values()].some((flag) => flag === true)) {
      refuse("it has a negated view");
    }
    return tensor(given);
  }],
  ["torch._utils._rebuild_parameter", parameter],
  ["torch._utils._rebuild_parameter_with_state", parameter],
  ["torch.Size", ([sizes]: unknown[]) => naturals(sizes)],
  ["torch.device", (given: unknown[]) => given.map(text).join(":")],
  ...Object.entries(STORAGES).flatMap(([name, dtype]) =>
    [`torch.${name}`, `torch.storage.${name}`].map((name) => [name, new StorageType(dtype)] as const)
  ),
  ...["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    .map((name) => [`torch.${name}`, `torch.${name}`] as const),
];

const list = ([items = []]: unknown[]) =>
  Array.isArray(items) ? [...items] : refuse("it makes a list of no list");

const pairs = ([items = []]: unknown[]): [TorchValue, TorchValue][] => {
  if (items instanceof Map) return [...items];
  const isPair = (item: unknown): item is [TorchValue, TorchValue] =>
    Array.isArray(item) && item.length === 2;
  return Array.isArray(items) && items.every(isPair) ? items : refuse("it makes a dict of no pairs");
};

const bytes = ([value = ""]: unknown[]) => value instanceof BytesInFile ? value : bytesOf(value);

const path = (separator: string) => (parts: unknown[]) =>
  parts.map(text).join(separator).replace(/^(\/|[A-Za-z]:\\)[/\\]/, "$1");

const PYTHON: readonly (readonly [string, unknown])[] = [
  ["collections.OrderedDict", (given: unknown[]) => new OrderedDict(pairs(given))],
  ["collections.defaultdict", () => new Map()],
  ["argparse.Namespace", () => new Namespace()],
  [
    "_codecs.encode",
    ([text, encoding]: unknown[]) =>
      encoding === "latin1" ? bytesOf(text) : refuse(`it encodes text as ${shown(encoding)}`),
  ],
  ...["builtins", "__builtin__"].flatMap((module) => [
    [`${module}.list`, list] as const,
    [`${module}.tuple`, list] as const,
    [`${module}.set`, (given: unknown[]) => new Set(list(given))] as const,
    [`${module}.frozenset`, (given: unknown[]) => new Set(list(given))] as const,
    [`${module}.dict`, (given: unknown[]) => new Map(pairs(given))] as const,
    [`${module}.bytes`, bytes] as const,
    [`${module}.bytearray`, bytes] as const,
    [`${module}.object`, {}] as const,
  ]),
  ...["copyreg", "copy_reg"].map((module) =>
    [
      `${module}._reconstructor`,
      ([type]: unknown[]) => typeof type === "function" ? type([]) : refuse("it makes an object of no class"),
    ] as const
  ),
  ...["pathlib", "pathlib._local"].flatMap((module) => [
    ...["Path", "PosixPath", "PurePosixPath"].map((name) => [`${module}.${name}`, path("/")] as const),
    ...["WindowsPath", "PureWindowsPath"].map((name) => [`${module}.${name}`, path("\\")] as const),
  ]),
];

const text = (value: unknown): string =>
  typeof value === "string" || typeof value === "number"
    ? String(value)
    : refuse("it makes text of an object");
