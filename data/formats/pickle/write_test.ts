import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Effect } from "effect";
import { inTestFolder } from "../../_test_kit.ts";
import { pythonTest } from "../../_test_python.ts";
import { bytesInMemory } from "../../files/byte_source.ts";
import type { FileTensor } from "../file_tensor.ts";
import { openTorch } from "../torch/read.ts";
import { isStoredTensor, type TorchValue } from "../torch/stored_tensor.ts";
import { OrderedDict } from "./values.ts";
import { Float, type PickleInput, writePickle } from "./write.ts";

const file = (name: string) => new URL(`../../../testdata/checkpoint/${name}`, import.meta.url);

pythonTest(
  "writePickle() writes detectron2's export, which Python and NumPy read bit for bit",
  "numpy",
  (python) =>
    inTestFolder(async (folder) => {
      const { detectron2: { model } } = JSON.parse(Deno.readTextFileSync(file("tiny_lars.exports.json")));
      const checkpoint = await Effect.runPromise(
        openTorch(bytesInMemory("tiny_lars.pth", Deno.readFileSync(file("tiny_lars.pth")))),
      );
      const stored = (checkpoint.value as Map<string, TorchValue>).get("model") as Map<string, TorchValue>;
      const arrays = new Map<string, FileTensor>();
      for (const [name, { from }] of Object.entries<{ from: string }>(model)) {
        const tensor = stored.get(from);
        assert(isStoredTensor(tensor));
        arrays.set(name, { ...tensor, data: await Effect.runPromise(tensor.values) });
      }
      const value = new Map<string, PickleInput>([["model", arrays], ["__author__", "ä"], [
        "matching_heuristics",
        true,
      ]]);
      Deno.writeFileSync(`${folder}/x.pkl`, Buffer.concat(writePickle(value)));
      const script = `
import hashlib, json, pickle, sys
value = pickle.load(open(sys.argv[1], "rb"))
list = {k: {"dtype": str(v.dtype), "shape": v.shape, "sha256": hashlib.sha256(v.tobytes()).hexdigest()} for k, v in value["model"].items()}
print(json.dumps({**value, "model": list}))`;
      const read = await python(script, `${folder}/x.pkl`) as Record<string, unknown>;
      for (const entry of Object.values<{ from?: string }>(model)) delete entry.from;
      assert.deepEqual(read, { model, __author__: "ä", matching_heuristics: true });
      assert.deepEqual(Object.keys(read.model as object), Object.keys(model));
    })(),
);

pythonTest(
  "writePickle() writes all plain values as Python understands them",
  "pickle",
  (python) =>
    inTestFolder(async (folder) => {
      const integers = [0, 255, 256, -1, -128, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), -(2 ** 31) - 1, 2 ** 53 - 1];
      const big = [
        2n ** 63n,
        -(2n ** 63n),
        2n ** 70n,
        -(2n ** 70n),
        127n,
        128n,
        -128n,
        -129n,
        -32768n,
        -32769n,
      ];
      const rest = [
        1.5,
        -0,
        NaN,
        Infinity,
        new Float(65536),
        null,
        true,
        false,
        "",
        "€😀".repeat(50_000),
        [],
        [[1]],
      ];
      const dicts = [
        new Map<PickleInput, PickleInput>([[1, "a"], ["1", "b"]]),
        new OrderedDict([["b", 1], ["a", 2]]),
      ];
      Deno.writeFileSync(
        `${folder}/x.pkl`,
        Buffer.concat(writePickle([...integers, ...big, ...rest, ...dicts])),
      );
      const script = `
import json, pickle, sys
value = pickle.load(open(sys.argv[1], "rb"))
print(json.dumps([type(item).__name__ + ":" + (str(len(item)) if len(repr(item)) > 100 else repr(item)) for item in value]))`;
      assert.deepEqual(await python(script, `${folder}/x.pkl`), [
        ...[...integers, ...big].map((value) => `int:${value}`),
        ...["float:1.5", "float:-0.0", "float:nan", "float:inf", "float:65536.0"],
        ...["NoneType:None", "bool:True", "bool:False", "str:''", "str:100000", "list:[]", "list:[[1]]"],
        ...["dict:{1: 'a', '1': 'b'}", "OrderedDict:OrderedDict([('b', 1), ('a', 2)])"],
      ]);
    })(),
);

Deno.test("writePickle() gives the same bytes each time, and large tensors as views", () => {
  const data = new Float32Array(1000).fill(0.5);
  const value = new Map<string, PickleInput>([["w", { dtype: "F32", shape: [10, 100], data }], ["x", 1]]);
  const pieces = writePickle(value);
  assert.deepEqual(Buffer.concat(pieces), Buffer.concat(writePickle(value)));
  assert(pieces.some((piece) => piece.buffer === data.buffer));
});

Deno.test("writePickle() refuses tensors that NumPy lacks or that do not fit, and values without an end", () => {
  const data = new Uint16Array(2);
  assert.throws(() => writePickle({ dtype: "BF16", shape: [2], data }), /RangeError.*BF16: NumPy/);
  assert.throws(
    () => writePickle({ dtype: "F32", shape: [2], data }),
    /F32 \[2\].*2 values in a Uint16Array/,
  );
  const endless: PickleInput[] = [];
  endless.push(endless);
  assert.throws(() => writePickle(endless), /deeper than 900/);
});
