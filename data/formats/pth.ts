/**
 * PyTorch's files and other pickles of arrays.
 *
 * - Since version 1.6 a zip archive: `<root>/data.pkl` is the pickled object, `<root>/data/<key>` are its storages.
 * - Before, five pickles one after the other: a magic number, the protocol, the writer's machine, the object, the keys of
 *   the storages; then each storage as the number of its elements (8 bytes) and the elements.
 * - A bare pickle with NumPy arrays is what detectron2 calls `.pkl`.
 *
 * Source: `torch/serialization.py` and `torch/_utils.py` of PyTorch, `__reduce__` of NumPy's arrays and types.
 */
import { Effect } from "effect";
import { Buffer } from "node:buffer";
import { bytesInMemory, type ByteSource } from "./byte_source.ts";
import { arrayOver, ARRAYS, type FileDtype, type StoredTensor } from "./file_tensor.ts";
import { FormatError } from "./format_error.ts";
import {
  BytesInFile,
  OrderedDict,
  type PickleValue,
  readPickle,
  refuse,
  shown,
  type Unpickling,
  whole,
} from "./pickle.ts";
import { openZip } from "./zip.ts";

/** Plain data and tensors. An `OrderedDict` and a `Namespace` are Maps as well. */
export type TorchValue = PickleValue<StoredTensor>;

export interface TorchFile {
  readonly value: TorchValue;
  readonly container: "zip" | "legacy" | "pickle";
}

/** An `argparse.Namespace`, to be told from a dict. */
export class Namespace extends Map<TorchValue, TorchValue> {}

export const isStoredTensor = (value: unknown): value is StoredTensor => value instanceof TensorInFile;

/**
 * Opens a file that `torch.save` or `pickle.dump` wrote. Tensors are read while the source is open, each when it is asked
 * for: row-major, whatever their strides, and checked against the checksum that zip archives have.
 *
 * Fails with a `FormatError` that names what the file asks for beyond plain data, tensors and NumPy arrays, or says what is
 * damaged; a tensor's `values` fail with one that names the tensor. Nothing in the file is executed or inflated.
 */
export const openTorch = Effect.fn("openTorch")(
  function* (source: ByteSource): Effect.fn.Return<TorchFile, FormatError> {
    const start = yield* source.read(0, Math.min(4, source.size));
    if (Buffer.from(start).toString("latin1") === "PK\x03\x04") {
      return { value: yield* readZip(source), container: "zip" };
    }
    const first = yield* readPickle(source, 0, meaning(source));
    if (first.value === MAGIC_NUMBER) {
      return { value: yield* readLegacy(source, first.end), container: "legacy" };
    }
    yield* ends(source, first.end);
    return { value: first.value, container: "pickle" };
  },
);

const MAGIC_NUMBER = 0x1950a86a20f9469cfc6cn;

const ends = ({ name, size }: ByteSource, end: number) => {
  if (end === size) return Effect.void;
  const reason = end < size
    ? `bytes ${end} to ${size} belong to nothing in it`
    : `it has ${size} of ${end} bytes: it was cut short`;
  return new FormatError({ file: name, reason });
};

const readZip = Effect.fnUntraced(function* (source: ByteSource): Effect.fn.Return<TorchValue, FormatError> {
  const entries = yield* openZip(source);
  const roots = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (roots.length !== 1) {
    const reason =
      `it is a zip archive with ${roots.length} entries "<root>/data.pkl", a PyTorch file has one`;
    return yield* new FormatError({ file: source.name, reason });
  }
  const root = roots[0].slice(0, -"data.pkl".length);
  const content = (name: string) => {
    const { size, read } = entries.get(root + name)!;
    return read(0, size);
  };
  const byteOrder = entries.has(`${root}byteorder`)
    ? Buffer.from(yield* content("byteorder")).toString("latin1").trim()
    : "little";
  if (byteOrder !== "little" && byteOrder !== "big") {
    const reason = `its byte order is ${shown(byteOrder)}, it can be little or big`;
    return yield* new FormatError({ file: source.name, reason });
  }

  const storages = new Map<string, Storage>();
  const pickled = bytesInMemory(source.name, yield* content("data.pkl"));
  const { value, end } = yield* readPickle(
    pickled,
    0,
    meaning(pickled, (key, dtype, length) => {
      const entry = entries.get(`${root}data/${key}`) ??
        refuse(`its entry ${shown(`${root}data/${key}`)} is missing`);
      const needed = length * ARRAYS[dtype].BYTES_PER_ELEMENT;
      if (entry.size !== needed) {
        refuse(`its entry ${shown(`${root}data/${key}`)} has ${entry.size} bytes, ${needed} are expected`);
      }
      return share(storages, key, { dtype, length, swapped: byteOrder === "big", read: entry.read });
    }),
  );
  yield* ends(pickled, end);
  return value;
});

const readLegacy = Effect.fnUntraced(function* (
  source: ByteSource,
  at: number,
): Effect.fn.Return<TorchValue, FormatError> {
  const damaged = (reason: string) => new FormatError({ file: source.name, reason });
  const plain = meaning(source);
  const protocol = yield* readPickle(source, at, plain);
  if (protocol.value !== 1001) {
    return yield* damaged(`it is of protocol ${shown(protocol.value)}, readable is 1001`);
  }
  const machine = yield* readPickle(source, protocol.end, plain);
  if (!(machine.value instanceof Map && machine.value.get("little_endian") === true)) {
    return yield* damaged("it does not come from a little-endian machine");
  }

  // The places of the storages follow the object that uses them.
  const starts = new Map<string, number>();
  const storages = new Map<string, Storage>();
  const { value, end } = yield* readPickle(
    source,
    machine.end,
    meaning(source, (key, dtype, length) => {
      const read = (begin: number, end: number) =>
        Effect.suspend(() => source.read(starts.get(key)! + begin, end - begin));
      return share(storages, key, { dtype, length, swapped: false, read });
    }),
  );
  const keys = yield* readPickle(source, end, plain);
  if (!Array.isArray(keys.value)) return yield* damaged("it has no list of its storages");
  let next = keys.end;
  for (const key of keys.value) {
    const storage = typeof key === "string" ? storages.get(key) : undefined;
    if (typeof key !== "string" || storage === undefined) {
      return yield* damaged("it has a storage that no tensor uses");
    }
    const { dtype, length } = storage;
    const stored = Number(new DataView((yield* source.read(next, 8)).buffer).getBigInt64(0, true));
    if (stored !== length) {
      return yield* damaged(
        `its storage ${shown(key)} has ${stored} elements at byte ${next}, ${length} are expected`,
      );
    }
    starts.set(key, next + 8);
    next += 8 + length * ARRAYS[dtype].BYTES_PER_ELEMENT;
  }
  for (const key of storages.keys()) {
    if (!starts.has(key)) return yield* damaged(`its storage ${shown(key)} is missing`);
  }
  yield* ends(source, next);
  return value;
});

/** Elements that lie one after the other, in the file or in memory. */
interface Storage {
  readonly dtype: FileDtype;
  readonly length: number;
  readonly swapped: boolean; // big-endian
  /** The bytes `begin` to `end`, a copy. */
  readonly read: (begin: number, end: number) => Effect.Effect<Uint8Array<ArrayBuffer>, FormatError>;
}

/** The storage of this name, which several tensors may use. */
const share = (storages: Map<string, Storage>, key: string, storage: Storage): Storage => {
  const known = storages.get(key);
  if (known === undefined) storages.set(key, storage);
  else if (known.dtype !== storage.dtype || known.length !== storage.length) {
    refuse(`its storage ${shown(key)} has two types or sizes`);
  }
  return known ?? storage;
};

/** A tensor of a pickle. NumPy's begin empty, and get their contents as a state. */
class TensorInFile implements StoredTensor {
  dtype!: FileDtype;
  shape!: readonly number[];
  values!: StoredTensor["values"];
  name = "";

  /** Lays the tensor over a storage; `strides` and `offset` count elements. */
  fill(storage: Storage, offset: unknown, sizes: unknown, steps: unknown): this {
    if (this.values !== undefined) refuse("it fills an array twice");
    // Copies: the pickle may still change its lists.
    const shape = naturals(sizes);
    const strides = naturals(steps);
    const [first] = naturals([offset]);
    if (shape.length !== strides.length) {
      refuse(`it has a tensor of ${shape.length} sizes and ${strides.length} strides`);
    }
    const { dtype, length } = storage;
    const size = ARRAYS[dtype].BYTES_PER_ELEMENT;
    const count = shape.reduce((product, size) => product * size, 1);
    const span = count === 0 ? 0 : shape.reduce((last, size, d) => last + (size - 1) * strides[d], 0) + 1;
    const text = `a tensor ${dtype} [${shape.join(", ")}]`;
    if (first + span > length) {
      refuse(`it has ${text} that ends at element ${first + span} of a storage of ${length}`);
    }
    if (count > length && count * size > MOST_REPEATED) {
      refuse(`it has ${text} that repeats the ${length} elements of its storage beyond reason`);
    }
    const gathered = !isRowMajor(shape, strides);

    this.dtype = dtype;
    this.shape = shape;
    this.values = storage.read(first * size, (first + span) * size).pipe(
      Effect.map((bytes) => {
        if (storage.swapped) swapBytes(bytes, size);
        const values = arrayOver(gathered ? gather(bytes, size, shape, strides, count) : bytes, dtype);
        // Whoever reads a mask relies on 0 and 1.
        return dtype === "BOOL" ? (values as Uint8Array).map((value) => value === 0 ? 0 : 1) : values;
      }),
      Effect.mapError(({ file, reason }) =>
        new FormatError({ file, reason: `tensor ${JSON.stringify(this.name)}: ${reason}` })
      ),
    );
    return this;
  }
}

const MOST_DIMENSIONS = 64;
// A tensor may repeat elements (a stride of 0), and so be larger than all of its file: not by much.
const MOST_REPEATED = 1 << 26; // bytes

const naturals = (list: unknown): number[] => {
  const isNatural = (value: unknown): value is number =>
    Number.isSafeInteger(value) && (value as number) >= 0;
  if (Array.isArray(list) && list.length <= MOST_DIMENSIONS && list.every(isNatural)) return [...list];
  return refuse(
    `it has a tensor whose sizes, strides or offset are not up to ${MOST_DIMENSIONS} whole numbers from 0 on`,
  );
};

const isRowMajor = (shape: readonly number[], strides: readonly number[]) => {
  let expected = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d] !== 1 && strides[d] !== expected) return shape.includes(0);
    expected *= shape[d];
  }
  return true;
};

const rowMajor = (shape: readonly number[]) => {
  const strides = shape.map(() => 1);
  for (let d = shape.length - 2; d >= 0; d--) strides[d] = strides[d + 1] * shape[d + 1];
  return strides;
};

// As whole numbers: moved as floats, a NaN may lose its bits.
const BITS: Readonly<
  Record<number, typeof Uint8Array | typeof Uint16Array | typeof Uint32Array | typeof BigUint64Array>
> = {
  1: Uint8Array,
  2: Uint16Array,
  4: Uint32Array,
  8: BigUint64Array,
};

const gather = (
  bytes: Uint8Array<ArrayBuffer>,
  size: number,
  shape: readonly number[],
  strides: readonly number[],
  count: number,
): Uint8Array => {
  const Words = BITS[size];
  const from = new Words(bytes.buffer);
  const to = new Words(count);
  const index = shape.map(() => 0);
  for (let i = 0, place = 0; i < count; i++) {
    to[i] = from[place];
    for (let d = shape.length - 1; d >= 0; d--) {
      place += strides[d];
      if (++index[d] < shape[d]) break;
      place -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
  return new Uint8Array(to.buffer);
};

const swapBytes = (bytes: Uint8Array, size: number) => {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (size === 2) buffer.swap16();
  if (size === 4) buffer.swap32();
  if (size === 8) buffer.swap64();
};

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
const meaning = (
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
