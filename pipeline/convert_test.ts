import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect } from "effect";
import { inTestFolder } from "../data/_test_kit.ts";
import { pythonTest } from "../data/_test_python.ts";
import { openBytes } from "../data/files/byte_source.ts";
import type { FileTensor } from "../data/formats/file_tensor.ts";
import { readSafetensors } from "../data/formats/safetensors.ts";
import { openTorch } from "../data/formats/torch/read.ts";
import { isStoredTensor, type TorchValue } from "../data/formats/torch/stored_tensor.ts";
import { writeTorch } from "../data/formats/torch/write.ts";
import { convert, type Format, FORMATS } from "./convert.ts";
import { PRETRAIN } from "./pretrain/task.ts";
import { loadCheckpoint } from "./run/checkpoint_file.ts";
import type { Which } from "./weights/encoder.ts";
import { openWeights } from "./weights/weights_file.ts";

const testdata = new URL("../testdata/checkpoint/", import.meta.url).pathname;
const [reference, legacy] = ["tiny_lars.pth", "tiny_lars.legacy.pth"].map((name) => join(testdata, name));
const exports = JSON.parse(Deno.readTextFileSync(join(testdata, "tiny_lars.exports.json")));

/** The formats that a pretraining run's file can be written in. */
const OF_RUNS = FORMATS.filter((to) => to !== "mmseg-segmentor");

const bytesAs = (file: string, to: Format, which: Which = "teacher") =>
  openWeights(file).pipe(
    Effect.flatMap((weights) => convert(weights, { to, which })),
    Effect.map(({ pieces }) => Buffer.concat(pieces)),
    Effect.scoped,
    Effect.runPromise,
  );

/** Converts into a file of a folder. */
const converted = async (folder: string, from: string, to: Format, which?: Which) => {
  const file = join(folder, `${to}.${crypto.randomUUID()}`);
  await Deno.writeFile(file, await bytesAs(from, to, which));
  return file;
};

const sha256 = (data: ArrayBufferView) =>
  createHash("sha256").update(Buffer.from(data.buffer, data.byteOffset, data.byteLength)).digest("hex");

/** A value with tensors as types, shapes and checksums, for comparisons. */
const plain = (value: TorchValue): Promise<unknown> =>
  isStoredTensor(value)
    ? Effect.runPromise(value.values).then((data) => ({
      ...{ dtype: value.dtype, shape: value.shape },
      sum: sha256(data),
    }))
    : value instanceof Map
    ? Promise.all([...value].map(async ([key, item]) => [key, await plain(item)]))
    : Array.isArray(value)
    ? Promise.all(value.map(plain))
    : Promise.resolve(value);

const contents = (file: string) =>
  Effect.gen(function* () {
    const { value } = yield* openTorch(yield* openBytes(file));
    const parts = value as Map<string, TorchValue>;
    const all: Record<string, unknown> = {};
    for (const [key, part] of parts) all[key] = yield* Effect.promise(() => plain(part));
    return all;
  }).pipe(Effect.scoped, Effect.runPromise);

Deno.test(
  "convert() carries a published checkpoint here and back with all of its model, optimiser, scheduler, scaler and epoch",
  inTestFolder(async (folder) => {
    const ours = await converted(folder, reference, "slotcon");
    const { meta } = await Effect.runPromise(loadCheckpoint(ours, PRETRAIN));
    assert.deepEqual([meta.step, meta.teacherCounter, meta.instances, meta.config.width], [4, 4, 8, 2]);

    const [there, back] = [await contents(reference), await contents(await converted(folder, ours, "pth"))];
    for (const part of ["model", "scheduler", "epoch", "scaler"]) {
      assert.deepEqual(back[part], there[part], part);
    }
    // PyTorch orders the entries of a group by how its optimiser was made.
    const sorted = (optimizer: unknown) => {
      const { state, param_groups: [group] } = Object.fromEntries(
        optimizer as [string, [string, unknown][][]][],
      );
      return { state, group: Object.fromEntries(group) };
    };
    assert.deepEqual(sorted(back.optimizer), sorted(there.optimizer));
    const args = Object.fromEntries(back.args as []);
    for (const [name, value] of there.args as [string, unknown][]) {
      const isOurs = name in args && !["seed", "resume", "num_workers"].includes(name);
      if (isOurs) assert.deepEqual(args[name], value, name);
    }
  }),
);

Deno.test("convert() gives the same bytes for the same content, whatever file it comes from", async () => {
  for (const to of OF_RUNS) {
    const bytes = await bytesAs(reference, to);
    assert.ok(bytes.equals(await bytesAs(reference, to)), to);
    assert.ok(bytes.equals(await bytesAs(legacy, to)), to);
  }
});

Deno.test(
  "convert() gives the teacher's encoder, or the student's, in torchvision's order from any file of a run",
  inTestFolder(async (folder) => {
    const ours = await converted(folder, reference, "slotcon");
    const names = Object.keys(exports.mmseg.state_dict);
    for (const which of ["teacher", "student"] as const) {
      const fromBoth = await Promise.all(
        [ours, reference].map((file) => bytesAs(file, "safetensors", which)),
      );
      assert.ok(fromBoth[0].equals(fromBoth[1]));
      const { tensors, metadata } = await Effect.runPromise(readSafetensors(fromBoth[0], which));
      assert.deepEqual(metadata, { format: "pt", arch: "resnet50", width: "2", method: "SlotCon" });
      assert.deepEqual(new Set(tensors.keys()), new Set(names));
      const sums = names.map((name) => sha256(tensors.get(name)!.data));
      const teachers = names.map((name) => exports.mmseg.state_dict[name].sha256);
      if (which === "teacher") assert.deepEqual(sums, teachers);
      else assert.notDeepEqual(sums, teachers);
    }
    const backbone = await contents(await converted(folder, ours, "backbone"));
    assert.deepEqual(Object.keys(backbone), names);
  }),
);

Deno.test(
  "openWeights() finds the same encoder in everything that convert() writes",
  inTestFolder(async (folder) => {
    const expected = await bytesAs(reference, "safetensors");
    for (const to of OF_RUNS.filter((to) => to !== "onnx")) {
      const file = await converted(folder, reference, to);
      assert.ok((await bytesAs(file, "safetensors")).equals(expected), to);
    }
  }),
);

Deno.test(
  "convert() and openWeights() say what a file lacks",
  inTestFolder(async (folder) => {
    const backbone = await converted(folder, reference, "backbone");
    const reason = (promise: Promise<unknown>) => promise.then(() => "nothing", ({ message }) => message);
    assert.match(
      await reason(bytesAs(backbone, "slotcon")),
      /^Cannot convert ".*" to slotcon: .*no run.*--init/,
    );
    const text = join(folder, "text.pth");
    await Deno.writeTextFile(text, "no weights at all\n");
    assert.match(
      await reason(bytesAs(text, "onnx")),
      /^Cannot read ".*text.pth": .*; readable are checkpoints/,
    );
    const [, head] = await Effect.runPromise(readSafetensors(await bytesAs(reference, "safetensors"), "x"))
      .then(
        ({ tensors }): [string, FileTensor] => ["fc.weight", tensors.get("conv1.weight")!],
      );
    await Deno.writeFile(text, Buffer.concat(writeTorch(new Map([["head.weight", head]]))));
    assert.match(await reason(bytesAs(text, "onnx")), /1 tensors, such as "head.weight", but no ResNet's/);
    assert.match(await reason(bytesAs(join(folder, "none"), "onnx")), /there is no such file/);
  }),
);

/** What Python finds in a file: names, types, shapes and checksums, in order. */
const LISTING = `
import hashlib, json
def listing(tensors):
  return [[name, str(t.dtype), list(t.shape), hashlib.sha256(t.tobytes()).hexdigest()] for name, t in tensors.items()]
`;
const listed = (entries: Record<string, { dtype: string; shape: number[]; sha256: string }>) =>
  Object.entries(entries).map(([name, { dtype, shape, sha256 }]) => [name, dtype, shape, sha256]);

pythonTest(
  "convert() writes what torch.load() and pickle read, equal to the recorded exports",
  "torch",
  (python) =>
    inTestFolder(async (folder) => {
      const [backbone, mmseg, detectron2] = await Promise.all(
        (["backbone", "mmseg", "detectron2"] as const).map((to) => converted(folder, reference, to)),
      );
      const script = `${LISTING}
import pickle, sys, torch
backbone, mmseg = [torch.load(file, weights_only=True) for file in sys.argv[1:3]]
assert list(mmseg) == ["state_dict"]
with open(sys.argv[3], "rb") as file: detectron2 = pickle.load(file)
assert isinstance(detectron2["__author__"], str) and detectron2["matching_heuristics"] is True and len(detectron2) == 3
arrays = lambda tensors: {name: t.numpy() for name, t in tensors.items()}
print(json.dumps([listing(arrays(backbone)), listing(arrays(mmseg["state_dict"])), listing(detectron2["model"])]))`;
      const [found1, found2, found3] = await python(script, backbone, mmseg, detectron2) as unknown[];
      assert.deepEqual(found1, listed(exports.mmseg.state_dict));
      assert.deepEqual(found2, listed(exports.mmseg.state_dict));
      assert.deepEqual(found3, listed(exports.detectron2.model));
    })(),
);

pythonTest(
  "convert() writes full checkpoints that PyTorch's own classes load",
  "torch",
  (python) =>
    inTestFolder(async (folder) => {
      const ours = await converted(folder, reference, "pth");
      const script = `
import json, sys, torch
theirs, ours, safe = torch.load(sys.argv[1], map_location="cpu"), torch.load(sys.argv[2]), None
assert list(theirs["model"]) == list(ours["model"])
assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(theirs["model"].values(), ours["model"].values()))
mu = lambda checkpoint: {i: s["mu"] for i, s in checkpoint["optimizer"]["state"].items()}
assert mu(theirs).keys() == mu(ours).keys() and all(torch.equal(mu(theirs)[i], mu(ours)[i]) for i in mu(ours))

# The optimiser and the schedulers take their parts, and stand where they stood.
parameters = [torch.nn.Parameter(t) for n, t in ours["model"].items()
  if n != "module.center" and not n.endswith(("running_mean", "running_var", "num_batches_tracked"))]
optimizer = torch.optim.SGD(parameters, lr=1.0, momentum=0.9)
optimizer.load_state_dict(ours["optimizer"])
cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1)
cosine.load_state_dict(ours["scheduler"]["after_scheduler"])
scaler = torch.cuda.amp.GradScaler(enabled=False)
scaler.load_state_dict(ours["scaler"])
print(json.dumps([optimizer.param_groups[0]["lr"], cosine.get_last_lr(), cosine.T_max, ours["epoch"], type(ours["args"]).__name__]))`;
      const lr = 0.0029299375;
      const [rate, [last], period, epoch, args] = await python(script, reference, ours) as [
        number,
        number[],
        number,
        number,
        string,
      ];
      assert.ok(Math.abs(rate - lr) < 1e-12 && Math.abs(last - lr) < 1e-12);
      assert.deepEqual([period, epoch, args], [6, 2, "dict"]);
    })(),
);
