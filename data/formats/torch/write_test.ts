import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Effect } from "effect";
import { inTestFolder } from "../../_test_kit.ts";
import { pythonTest } from "../../_test_python.ts";
import { bytesInMemory } from "../../files/byte_source.ts";
import type { FileTensor } from "../file_tensor.ts";
import { OrderedDict } from "../pickle/values.ts";
import { Float, type PickleInput } from "../pickle/write.ts";
import { openTorch } from "./read.ts";
import { isStoredTensor, Namespace, type TorchValue } from "./stored_tensor.ts";
import { writeTorch } from "./write.ts";

const tensors = new OrderedDict<string, FileTensor>([
  ["double", { dtype: "F64", shape: [2], data: new Float64Array([0.1, -0]) }],
  ["float", { dtype: "F32", shape: [2, 3], data: new Float32Array([1, 2, 3, 4, 5, 6]) }],
  ["half", { dtype: "F16", shape: [1, 2], data: new Float16Array([0.5, -65504]) }],
  ["bfloat16", { dtype: "BF16", shape: [2], data: new Uint16Array([0x3f80, 0xc000]) }],
  ["int64", { dtype: "I64", shape: [], data: new BigInt64Array([-(2n ** 63n)]) }],
  ["int32", { dtype: "I32", shape: [1, 1, 1], data: new Int32Array([-5]) }],
  ["int16", { dtype: "I16", shape: [1], data: new Int16Array([-6]) }],
  ["int8", { dtype: "I8", shape: [1], data: new Int8Array([-7]) }],
  ["uint8", { dtype: "U8", shape: [1], data: new Uint8Array([255]) }],
  ["bool", { dtype: "BOOL", shape: [2], data: new Uint8Array([1, 0]) }],
  ["empty", { dtype: "F32", shape: [0, 3], data: new Float32Array(0) }],
]);

pythonTest(
  "writeTorch() writes what torch.load() reads, also with weights_only",
  "torch",
  (python) =>
    inTestFolder(async (folder) => {
      // PyTorch 1.13 knows no floats with weights_only.
      Deno.writeFileSync(`${folder}/x.pth`, Buffer.concat(writeTorch(new Map([["state_dict", tensors]]))));
      const script = `
import json, sys, torch
for weights_only in False, True:
  value = torch.load(sys.argv[1], weights_only=weights_only)
  assert type(value).__name__ == "dict" and type(value["state_dict"]).__name__ == "OrderedDict"
print(json.dumps({k: [str(t.dtype), list(t.shape), t.is_contiguous(), t.flatten().tolist()] for k, t in value["state_dict"].items()}))`;
      assert.deepEqual(await python(script, `${folder}/x.pth`), {
        double: ["torch.float64", [2], true, [0.1, -0]],
        float: ["torch.float32", [2, 3], true, [1, 2, 3, 4, 5, 6]],
        half: ["torch.float16", [1, 2], true, [0.5, -65504]],
        bfloat16: ["torch.bfloat16", [2], true, [1, -2]],
        int64: ["torch.int64", [], true, [Number(-(2n ** 63n))]],
        int32: ["torch.int32", [1, 1, 1], true, [-5]],
        int16: ["torch.int16", [1], true, [-6]],
        int8: ["torch.int8", [1], true, [-7]],
        uint8: ["torch.uint8", [1], true, [255]],
        bool: ["torch.bool", [2], true, [true, false]],
        empty: ["torch.float32", [0, 3], true, []],
      });
    })(),
);

pythonTest(
  "writeTorch() writes a checkpoint that was read, as PyTorch wrote it",
  "torch",
  (python) =>
    inTestFolder(async (folder) => {
      const path = new URL("../../../testdata/checkpoint/tiny_lars.pth", import.meta.url).pathname;
      const { value } = await Effect.runPromise(openTorch(bytesInMemory(path, Deno.readFileSync(path))));
      const written = async (value: TorchValue): Promise<PickleInput> => {
        if (isStoredTensor(value)) return { ...value, data: await Effect.runPromise(value.values) };
        if (Array.isArray(value)) return Promise.all(value.map(written));
        if (!(value instanceof Map)) return value as PickleInput;
        const copy = value instanceof OrderedDict ? new OrderedDict<PickleInput, PickleInput>() : new Map();
        for (const [key, item] of value) copy.set(key as string, await written(item));
        return copy;
      };
      assert((value as Map<string, TorchValue>).get("args") instanceof Namespace);
      Deno.writeFileSync(`${folder}/x.pth`, Buffer.concat(writeTorch(await written(value))));
      const script = `
import json, sys, torch
a, b = (torch.load(path, map_location="cpu") for path in sys.argv[1:])
a["args"] = vars(a["args"])
def equal(a, b):
  if torch.is_tensor(a): return a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride() and torch.equal(a, b)
  if isinstance(a, dict): return type(a) is type(b) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
  if isinstance(a, list): return len(a) == len(b) and all(map(equal, a, b))
  return a == b
print(json.dumps(equal(a, b)))`;
      assert.equal(await python(script, path, `${folder}/x.pth`), true);
    })(),
);

Deno.test("writeTorch() gives the same bytes each time, aligned views for tensors, and one storage for shared data", () => {
  const data = new Float32Array(100).fill(0.5);
  const value = [
    { dtype: "F32", shape: [10, 10], data },
    { dtype: "F32", shape: [100], data },
    new Float(1),
  ] as const;
  const pieces = writeTorch(value);
  assert.deepEqual(Buffer.concat(pieces), Buffer.concat(writeTorch(value)));
  assert.equal(pieces.filter((piece) => piece.buffer === data.buffer).length, 1);
  const start = pieces.slice(0, pieces.findIndex((piece) => piece.buffer === data.buffer));
  assert.equal(start.reduce((sum, { length }) => sum + length, 0) % 64, 0);
});

Deno.test("writeTorch() refuses tensors that PyTorch lacks or that do not fit, and files of too many tensors", () => {
  const data = new Uint32Array(2);
  assert.throws(() => writeTorch({ dtype: "U32", shape: [2], data }), /U32: PyTorch has no such storage/);
  assert.throws(() => writeTorch({ dtype: "F32", shape: [2], data }), /2 values in a Uint32Array/);
  const many = Array.from(
    { length: 65_535 },
    () => ({ dtype: "U8", shape: [1], data: new Uint8Array(1) }) as const,
  );
  assert.throws(() => writeTorch(many), /65535 entries/);
});
