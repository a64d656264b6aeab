import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { Uint8ArrayReader, Uint8ArrayWriter, ZipWriter } from "@zip.js/zip.js";
import { Effect } from "effect";
import { inTestFolder, secondsComputed } from "../../_test_kit.ts";
import { pythonTest } from "../../_test_python.ts";
import { bytesInMemory, openBytes } from "../../files/byte_source.ts";
import type { FileTensor } from "../file_tensor.ts";
import { writePickle } from "../pickle/write.ts";
import { readSafetensors } from "../safetensors.ts";
import { openTorch } from "./read.ts";
import { isStoredTensor, type TorchValue } from "./stored_tensor.ts";
import { writeTorch } from "./write.ts";

const recorded = (name: string) =>
  Deno.readFileSync(new URL(`../../../testdata/checkpoint/${name}`, import.meta.url));

/** What a file holds, all its tensors read. */
const load = (bytes: Uint8Array) => Effect.runPromise(loading(bytes));

const loading = Effect.fnUntraced(function* (bytes: Uint8Array) {
  return yield* loaded((yield* openTorch(bytesInMemory("x.pth", bytes))).value);
});

// deno-lint-ignore no-explicit-any
const loaded = (value: TorchValue): Effect.Effect<any, Effect.Error<ReturnType<typeof openTorch>>> =>
  Effect.gen(function* () {
    if (isStoredTensor(value)) return { dtype: value.dtype, shape: value.shape, data: yield* value.values };
    if (Array.isArray(value)) return yield* Effect.forEach(value, loaded);
    if (!(value instanceof Map)) return value;
    const copy = new Map();
    for (const [key, item] of value) copy.set(key, yield* loaded(item));
    return copy;
  });

const reasonOf = async (bytes: Uint8Array) => {
  const error = await Effect.runPromise(Effect.flip(loading(bytes)));
  assert.equal(error._tag, "FormatError");
  return error.reason;
};

const join = (pieces: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(pieces));
const latin1 = (text: string) => new Uint8Array(Buffer.from(text, "latin1"));

/** Maps as objects, as JSON has them. */
const plain = (value: unknown): unknown =>
  value instanceof Map
    ? Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]))
    : Array.isArray(value)
    ? value.map(plain)
    : value;

for (const name of ["tiny_lars.pth", "tiny_lars.legacy.pth"]) {
  Deno.test(`openTorch() reads the checkpoint ${name} bit for bit`, async () => {
    const { tensors, metadata } = await Effect.runPromise(
      readSafetensors(recorded("tiny_lars.safetensors"), "tiny_lars.safetensors"),
    );
    const root = await load(recorded(name));
    const stored = (key: string) => plain(root.get(key));
    assert.deepEqual([...root.keys()], ["args", "model", "optimizer", "scheduler", "epoch", "scaler"]);
    for (const key of ["args", "scheduler", "epoch", "scaler"]) {
      assert.deepEqual(stored(key), JSON.parse(metadata[key]), key);
    }
    assert.deepEqual(plain(root.get("optimizer").get("param_groups")), JSON.parse(metadata.param_groups));
    assert.deepEqual([...root.get("model").keys()], JSON.parse(metadata.model_order));

    const read = new Map<string, FileTensor>();
    for (const [name, tensor] of root.get("model")) read.set(`model/${name}`, tensor);
    for (const [index, state] of root.get("optimizer").get("state")) {
      read.set(`optimizer/${index}/mu`, state.get("mu"));
    }
    assert.deepEqual(new Set(read.keys()), new Set(tensors.keys()));
    for (const [name, { dtype, shape, data }] of tensors) {
      const tensor = read.get(name)!;
      assert.deepEqual([tensor.dtype, tensor.shape], [dtype, shape], name);
      const bits = ({ buffer, byteOffset, byteLength }: FileTensor["data"]) =>
        Buffer.from(buffer, byteOffset, byteLength);
      assert(bits(tensor.data).equals(bits(data)), name);
    }
  });
}

const SAVE = `
import argparse, collections, hashlib, json, pathlib, pickle, sys
import numpy as np, torch
folder = sys.argv[1]
torch.manual_seed(1)
base = torch.randn(4, 6, 5)
strange = torch.tensor([0x7fa00001, 0x7f800001, -1, 1], dtype=torch.int32).view(torch.float32)
tensors = {
  "double": base.double(), "float": base, "half": base.half(), "bfloat16": base.bfloat16(),
  "long": torch.tensor([-2**63, 2**63 - 1]), "int": torch.tensor([-2**31], dtype=torch.int32),
  "short": torch.tensor([-2**15], dtype=torch.int16), "char": torch.tensor([-128], dtype=torch.int8),
  "byte": torch.tensor([255], dtype=torch.uint8), "bool": base > 0, "scalar": torch.tensor(7), "none": torch.zeros(0, 3),
  "transposed": base.transpose(0, 2), "sliced": base[1:3, ::2, 1:4], "row": base[2], "element": base[1, 2, 3],
  "expanded": torch.tensor([[1.], [2.]]).expand(2, 3), "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
  "half_transposed": base.half().transpose(0, 1), "bool_transposed": (base > 0).transpose(0, 1), "nan_transposed": strange.view(2, 2).t(),
  "parameter": torch.nn.Parameter(torch.randn(3)), "large": torch.arange(300_000), "large_part": torch.arange(300_000)[100:200_000],
}
arrays = {
  "f8": np.arange(6.).reshape(2, 3), "f4": np.arange(3, dtype="f4"), "f2": np.array([1.5, np.nan], "f2"), "i8": np.array(-5), "u4": np.array([2**32 - 1], "u4"),
  "i2": np.array([-2], "i2"), "u1": np.arange(256, dtype="u1"), "b1": np.array([True, False]), "big": np.arange(3, dtype=">i4"), "fortran": np.asfortranarray(np.arange(6.).reshape(2, 3)),
  "strided": np.arange(24).reshape(4, 6)[::2, 1::2], "empty": np.zeros((0, 2)), "large": np.arange(100_000, dtype="f8"),
}
shared = [1, 2]
rest = {
  "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/a/b"), device=torch.device("cuda", 1), names=("a", None), dtype=torch.float16),
  "numbers": [np.float32(0.5), np.float64(2), np.int64(-3), np.bool_(True), 2**53, 2**70, -2**31, float("inf")],
  "shape": base.shape, "shared": [shared, shared], "bytes": b"\\x00\\xff" * 40_000, "array": bytearray(b"a\\xff"), "text": "\\u20ac\\n\\\\" * 30_000, "empty": b"",
  "sets": [{1}, frozenset([2])], "default": collections.defaultdict(list, {"a": [1]}), "ordered": collections.OrderedDict([(2, "b"), (1, "a")]), "__proto__": {"__proto__": 1},
  "state": torch.nn.BatchNorm1d(2).state_dict(),
}
for name, zipped in ("zip.pth", True), ("legacy.pth", False):
  torch.save({**rest, "tensors": tensors, "arrays": arrays}, f"{folder}/{name}", _use_new_zipfile_serialization=zipped)
for protocol in range(6):
  plain = {key: value for key, value in rest.items() if key != "state"}
  with open(f"{folder}/{protocol}.pkl", "wb") as file: pickle.dump({**plain, "arrays": arrays}, file, protocol)

def listed(array, dtype): return [dtype, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
TORCH = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
NUMPY = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "uint32": "U32", "int32": "I32", "int16": "I16", "uint8": "U8", "bool": "BOOL"}
bits = lambda t: t.detach().contiguous().view(torch.int16) if t.dtype == torch.bfloat16 else t.detach().contiguous()
print(json.dumps({
  "tensors": {name: listed(bits(t).numpy(), TORCH[t.dtype]) for name, t in tensors.items()},
  "arrays": {name: listed(np.ascontiguousarray(a.astype(a.dtype.newbyteorder("="))).reshape(a.shape), NUMPY[a.dtype.name]) for name, a in arrays.items()},
}))
`;

pythonTest(
  "openTorch() reads all types, layouts and values that PyTorch and NumPy save, in all formats and protocols",
  "torch",
  (python) =>
    inTestFolder(async (folder) => {
      const expected = await python(SAVE, folder) as Record<string, Record<string, unknown>>;
      const listed = (tensors: Map<string, FileTensor>) =>
        Object.fromEntries([...tensors].map(([name, { dtype, shape, data }]) => {
          const hash = createHash("sha256").update(
            new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
          );
          return [name, [dtype, shape, hash.digest("hex")]];
        }));
      for (const name of ["zip.pth", "legacy.pth", "0.pkl", "1.pkl", "2.pkl", "3.pkl", "4.pkl", "5.pkl"]) {
        const read = await Effect.runPromise(Effect.scoped(Effect.gen(function* () {
          return yield* loaded((yield* openTorch(yield* openBytes(`${folder}/${name}`))).value);
        })));
        assert.deepEqual(listed(read.get("arrays")), expected.arrays, name);
        if (name.endsWith(".pth")) {
          assert.deepEqual(listed(read.get("tensors")), expected.tensors, name);
          assert.deepEqual(read.get("state").get("num_batches_tracked").data, new BigInt64Array([0n]));
        }
        const args = { lr: 0.1, path: "/a/b", device: "cuda:1", names: ["a", null], dtype: "torch.float16" };
        assert.deepEqual(plain(read.get("args")), args, name);
        assert.deepEqual(
          read.get("numbers"),
          [0.5, 2, -3, true, 9007199254740992n, 2n ** 70n, -(2 ** 31), Infinity],
        );
        assert.deepEqual(read.get("shape"), [4, 6, 5]);
        assert.deepEqual(read.get("shared"), [[1, 2], [1, 2]]);
        assert.deepEqual(read.get("bytes"), new Uint8Array(80_000).map((_, i) => i % 2 * 255));
        assert.deepEqual(read.get("array"), latin1("a\xff"));
        assert.deepEqual(read.get("empty"), new Uint8Array(0));
        assert.equal(read.get("text"), "€\n\\".repeat(30_000));
        assert.deepEqual(read.get("sets"), [new Set([1]), new Set([2])]);
        assert.deepEqual(read.get("default"), new Map([["a", [1]]]));
        assert.deepEqual(read.get("ordered"), new Map([[2, "b"], [1, "a"]]));
        assert.deepEqual(read.get("__proto__"), new Map([["__proto__", 1]]));
      }
    })(),
);

/** An archive as PyTorch's, made by another program. */
const archive = async (
  { entries, level = 0 }: { entries: Record<string, Uint8Array>; level?: number },
) => {
  const zip = new ZipWriter(new Uint8ArrayWriter(), { level, useWebWorkers: false, keepOrder: true });
  for (const [name, bytes] of Object.entries(entries)) await zip.add(name, new Uint8ArrayReader(bytes));
  return await zip.close();
};

interface Claim {
  readonly storage?: string;
  readonly numel?: string;
  readonly offset?: string;
  readonly shape?: string;
  readonly strides?: string;
}

/** The pickle of one tensor [2] over the storage "0" of two floats, or what is claimed instead. */
const tensorPickle = (claim: Claim = {}) => {
  const { storage = "FloatStorage", numel = "K\x02", offset = "K\0", shape = "K\x02", strides = "K\x01" } =
    claim;
  return latin1(
    `\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n${storage}\nU\x010U\x03cpu${numel}tQ` +
      `${offset}(${shape}t(${strides}t\x89ccollections\nOrderedDict\n)RtR.`,
  );
};

const FLOATS = new Uint8Array(new Float32Array([1.5, -2]).buffer);
const tensorFile = (claim?: Claim, extra: Record<string, Uint8Array> = { "r/data/0": FLOATS }) =>
  archive({ entries: { "r/data.pkl": tensorPickle(claim), ...extra } });

Deno.test("openTorch() reads archives of other writers, and swaps the bytes of big-endian ones", async () => {
  assert.deepEqual(await load(await tensorFile()), {
    dtype: "F32",
    shape: [2],
    data: new Float32Array([1.5, -2]),
  });
  const swapped = { "r/data/0": new Uint8Array(Buffer.from(FLOATS).swap32()), "r/byteorder": latin1("big") };
  assert.deepEqual((await load(await tensorFile({}, swapped))).data, new Float32Array([1.5, -2]));
  assert.match(
    await reasonOf(await tensorFile({}, { ...swapped, "r/byteorder": latin1("pdp") })),
    /order is "pdp"/,
  );
});

Deno.test("openTorch() refuses tensors that do not lie in their storage, and says what is wrong", async () => {
  const huge = "\x8a\x08\0\0\0\0\0\0\0\x10";
  const claims: [Claim, RegExp][] = [
    [{ offset: "K\x01" }, /tensor F32 \[2\] that ends at element 3 of a storage of 2/],
    [{ shape: "K\x03" }, /ends at element 3/],
    [{ strides: "K\x02" }, /ends at element 3/],
    [{ shape: "J\xff\xff\xff\xff" }, /whole numbers/],
    [{ strides: "J\xff\xff\xff\xff" }, /whole numbers/],
    [{ offset: "N" }, /whole numbers/],
    [{ shape: "G\x3f\xf8\0\0\0\0\0\0" }, /whole numbers/],
    [{ shape: huge }, /whole numbers/],
    [{ shape: "K\x01".repeat(65), strides: "K\x01".repeat(65) }, /up to 64/],
    [{ shape: "K\x02K\x01" }, /2 sizes and 1 strides/],
    [{ shape: "J\0\0\0\x7f".repeat(5), strides: "K\0".repeat(5) }, /repeats the 2 elements/],
    [{ shape: "J\0\0\0\x02", strides: "K\0" }, /repeats the 2 elements/],
    [{ numel: "K\x03" }, /"r\/data\/0" has 8 bytes, 12 are expected/],
    [{ storage: "DoubleStorage" }, /16 are expected/],
    [{ numel: huge }, /whole numbers/],
    [{ storage: "ComplexFloatStorage" }, /asks for torch\.ComplexFloatStorage/],
    [{ storage: "Size" }, /no storage/],
  ];
  for (const [claim, reason] of claims) assert.match(await reasonOf(await tensorFile(claim)), reason);
  assert.deepEqual((await load(await tensorFile({ strides: "K\0" }))).data, new Float32Array([1.5, 1.5]));
});

Deno.test("openTorch() refuses archives that are damaged, compressed or no PyTorch files", async () => {
  const zeros = new Uint8Array(1 << 24);
  const entries = { "r/data.pkl": tensorPickle({ numel: "J\0\0\x40\0" }), "r/data/0": zeros };
  assert.match(await reasonOf(await archive({ entries, level: 9 })), /"r\/data.pkl" is compressed/);
  assert.match(await reasonOf(await archive({ entries: { "a/b": zeros } })), /0 entries "<root>\/data.pkl"/);
  assert.match(await reasonOf(await tensorFile({}, {})), /"r\/data\/0" is missing/);
  assert.match(await reasonOf(latin1("PK\x03\x04")), /zip directory is cut short or damaged/);

  const good = await tensorFile();
  const changed = (change: (bytes: Buffer) => void) => {
    const bytes = new Uint8Array(good);
    change(Buffer.from(bytes.buffer));
    return bytes;
  };
  const directory = Buffer.from(good).indexOf("PK\x01\x02", 0, "latin1");
  const second = Buffer.from(good).indexOf("PK\x01\x02", directory + 4, "latin1");
  const data = Buffer.from(good).indexOf(FLOATS);
  assert.match(
    await reasonOf(changed((bytes) => bytes[data] ^= 1)),
    new RegExp(`^tensor "": bytes ${data} to ${data + 8}, its entry "r/data/0", do not match their checksum`),
  );
  assert.match(await reasonOf(changed((bytes) => bytes.writeUInt32LE(0, second + 42))), /overlaps/);
  assert.match(
    await reasonOf(changed((bytes) => {
      bytes.writeUInt32LE(0x7fffffff, second + 20);
      bytes.writeUInt32LE(0x7fffffff, second + 24);
    })),
    /overlaps|out of bounds/,
  );
  assert.match(await reasonOf(changed((bytes) => bytes.write("r/data.pkl", second + 46 - 2))), /./);
});

Deno.test("openTorch() names the tensor and the bytes that are damaged, also where it uses only a part", async () => {
  const tensor = { dtype: "F32", shape: [1 << 21], data: new Float32Array(1 << 21).fill(1) } as const;
  const bytes = join(writeTorch(new Map([["model", new Map([["w", tensor]])]])));
  bytes[bytes.length - 1000] ^= 1;
  assert.match(
    await reasonOf(bytes),
    /^tensor "model\.w": bytes 384 to 8388992, its entry "archive\/data\/0", do not/,
  );

  const part = await tensorFile({ shape: "K\x01", offset: "K\x01" });
  assert.deepEqual((await load(part)).data, new Float32Array([-2]));
  part[Buffer.from(part).indexOf(FLOATS)] ^= 1;
  assert.match(await reasonOf(part), /do not match their checksum/);
});

/** Numbers that look random and are the same in each run. */
const draws = (seed: number) => () => {
  seed = Math.imul(seed ^ seed >>> 15, seed | 1);
  seed ^= seed + Math.imul(seed ^ seed >>> 7, seed | 61);
  return ((seed ^ seed >>> 14) >>> 0) / 2 ** 32;
};

Deno.test("openTorch() meets 600 damaged files with an error or the right values, in bounded time", async () => {
  const value = new Map<string, FileTensor | number>([
    ["w", { dtype: "F32", shape: [2, 3], data: new Float32Array([1, 2, 3, 4, 5, 6]) }],
    ["epoch", 7],
    ["n", { dtype: "I64", shape: [], data: new BigInt64Array([5n]) }],
  ]);
  const originals: [string, Uint8Array, unknown][] = [
    ["zip", join(writeTorch(value)), value],
    ["other zip", await tensorFile(), await load(await tensorFile())],
    ["pickle", join(writePickle(value)), undefined], // without checksums, other values may come out
    ["legacy", recorded("tiny_lars.legacy.pth").subarray(0, 90_000), undefined],
  ];
  const draw = draws(1);
  const start = secondsComputed();
  const rss = Deno.memoryUsage().rss;
  for (const [kind, bytes, expected] of originals) {
    for (let run = 0; run < 150; run++) {
      const cut = run % 3 === 0;
      const damaged = bytes.slice(0, cut ? Math.floor(draw() * bytes.length) : bytes.length);
      const place = Math.floor(draw() * bytes.length);
      if (!cut) damaged[place] ^= 1 << Math.floor(draw() * 8);
      const result = await Effect.runPromise(Effect.result(loading(damaged)));
      if (result._tag === "Failure") assert.equal(result.failure._tag, "FormatError");
      else {
        assert(!cut, `${kind} cut to ${damaged.length}`);
        if (expected !== undefined) assert.deepEqual(result.success, expected, `${kind}, byte ${place}`);
      }
    }
  }
  assert(secondsComputed() - start < 20);
  assert(Deno.memoryUsage().rss - rss < 5e8);
});

Deno.test("openTorch() refuses arrays of other types and sizes than their bytes", async () => {
  const pickle = Buffer.from(join(writePickle({ dtype: "F32", shape: [2], data: new Float32Array(2) })))
    .toString("latin1");
  assert.deepEqual((await load(latin1(pickle))).data, new Float32Array(2));
  assert.match(await reasonOf(latin1(pickle.replace("f4", "O8"))), /type "O8", readable are f8, /);
  assert.match(
    await reasonOf(latin1(pickle.replace("f4", "f8"))),
    /array F64 \[2\] of 8 bytes, 16 are expected/,
  );
  assert.match(
    await reasonOf(latin1(pickle.replace("(K\x02t", "(K\x03t"))),
    /array F32 \[3\] of 8 bytes, 12/,
  );
  assert.match(await reasonOf(latin1(pickle.replace("ndarray", "matrix"))), /asks for numpy\.matrix/);
  assert.match(await reasonOf(latin1(pickle + "N.")), /belong to nothing/);
});

Deno.test("openTorch() refuses legacy files whose storages are missing or of other sizes", async () => {
  const bytes = recorded("tiny_lars.legacy.pth");
  assert.match(await reasonOf(bytes.subarray(0, bytes.length - 1)), /it was cut short/);
  assert.match(await reasonOf(join([bytes, new Uint8Array(1)])), /belong to nothing/);
  const little = Buffer.from(bytes).toString("latin1");
  assert.match(
    await reasonOf(latin1(little.replace("little_endianq\x02\x88", "little_endianq\x02\x89"))),
    /little-endian/,
  );
  assert.match(await reasonOf(latin1(little.replace("M\xe9\x03.", "M\xe8\x03."))), /protocol 1000/);
});
