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
import { Buffer } from "node:buffer";
import { Effect } from "effect";
import { bytesInMemory, type ByteSource } from "../../files/byte_source.ts";
import { FormatError, shown } from "../../files/format_error.ts";
import { ARRAYS } from "../file_tensor.ts";
import { readPickle } from "../pickle/read.ts";
import { refuse } from "../pickle/values.ts";
import { openZip } from "../zip.ts";
import { meaning } from "./globals.ts";
import type { Storage, TorchValue } from "./stored_tensor.ts";

export interface TorchFile {
  readonly value: TorchValue;
  readonly container: "zip" | "legacy" | "pickle";
}

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

/** Tensors are entries of their own: what is left is names and numbers, NumPy's arrays at most. */
const LARGEST_PICKLE = 2 ** 30;
const MAGIC_NUMBER = 0x1950a86a20f9469cfc6cn;

const ends = ({ name, size }: ByteSource, end: number) => {
  if (end === size) return Effect.void;
  const reason = end < size
    ? `bytes ${end} to ${size} belong to nothing in it`
    : `it has ${size} of ${end} bytes: it was cut short`;
  return new FormatError({ subject: name, reason });
};

const readZip = Effect.fnUntraced(function* (source: ByteSource): Effect.fn.Return<TorchValue, FormatError> {
  const entries = yield* openZip(source);
  const roots = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (roots.length !== 1) {
    const reason =
      `it is a zip archive with ${roots.length} entries "<root>/data.pkl", a PyTorch file has one`;
    return yield* new FormatError({ subject: source.name, reason });
  }
  const root = roots[0].slice(0, -"data.pkl".length);
  const content = Effect.fnUntraced(function* (name: string) {
    const { size, read } = entries.get(root + name)!;
    if (size <= LARGEST_PICKLE) return yield* read(0, size);
    const reason = `its entry ${shown(root + name)} has ${size} bytes, at most ${LARGEST_PICKLE} are read`;
    return yield* new FormatError({ subject: source.name, reason });
  });
  const byteOrder = entries.has(`${root}byteorder`)
    ? Buffer.from(yield* content("byteorder")).toString("latin1").trim()
    : "little";
  if (byteOrder !== "little" && byteOrder !== "big") {
    const reason = `its byte order is ${shown(byteOrder)}, it can be little or big`;
    return yield* new FormatError({ subject: source.name, reason });
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
  const damaged = (reason: string) => new FormatError({ subject: source.name, reason });
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

/** The storage of this name, which several tensors may use. */
const share = (storages: Map<string, Storage>, key: string, storage: Storage): Storage => {
  const known = storages.get(key);
  if (known === undefined) storages.set(key, storage);
  else if (known.dtype !== storage.dtype || known.length !== storage.length) {
    refuse(`its storage ${shown(key)} has two types or sizes`);
  }
  return known ?? storage;
};
