import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { Effect } from "effect";
import { inTestFolder } from "../data/_test_kit.ts";
import type { FileTensor } from "../data/formats/file_tensor.ts";
import type { PickleInput } from "../data/formats/pickle/write.ts";
import { readSafetensors } from "../data/formats/safetensors.ts";
import { writeTorch } from "../data/formats/torch/write.ts";
import { convert, type Format, FORMATS } from "./convert.ts";
import { frozenEncoder, untrainedEncoder } from "./inference/frozen_encoder.ts";
import { detectron2Name, type Which } from "./weights/encoder.ts";
import { openWeights } from "./weights/weights_file.ts";

type Tensors = ReadonlyMap<string, FileTensor>;
const resnet = (seed: number): Tensors =>
  new Map(
    [...untrainedEncoder({ arch: "resnet18", width: 2 }, seed).values].map(([name, { shape, data }]) => [
      name,
      name.endsWith("num_batches_tracked")
        ? { dtype: "I64", shape, data: BigInt64Array.of(0n) }
        : { dtype: "F32", shape, data: Float32Array.from(data) },
    ]),
  );
const [first, second] = [resnet(1), resnet(2)];
const under = (prefix: string, tensors: Tensors, rename = (name: string) => name): Map<string, FileTensor> =>
  new Map([...tensors].map(([name, tensor]) => [prefix + rename(name), tensor]));
const dict = (entries: Readonly<Record<string, unknown>>): PickleInput =>
  new Map(Object.entries(entries)) as never;
const head: FileTensor = { dtype: "F32", shape: [2, 2], data: new Float32Array(4) };
const momentum = dict({
  state: new Map([[0, dict({ momentum_buffer: first.get("conv1.weight") })]]),
  param_groups: [dict({ lr: 1 }), dict({ lr: 2 })],
});

const convertedFrom = async (folder: string, value: PickleInput, to: Format, which: Which = "teacher") => {
  const file = join(folder, "weights.pth");
  await Deno.writeFile(file, Buffer.concat(writeTorch(value)));
  return await openWeights(file).pipe(
    Effect.flatMap((weights) => convert(weights, { to, which })),
    Effect.map(({ pieces }) => Buffer.concat(pieces)),
    Effect.scoped,
    Effect.runPromise,
  );
};
const refusal = (work: Promise<unknown>): Promise<string> =>
  work.then(() => "nothing", ({ message }) => message);

Deno.test(
  "convert() finds the encoder in what other people's training scripts save",
  inTestFolder(async (folder) => {
    const expected = await convertedFrom(folder, under("", first) as never, "safetensors");
    const files: Record<string, unknown> = {
      "torch.compile": under("_orig_mod.", first),
      "DataParallel around torch.compile": under("module._orig_mod.", first),
      "torchvision's training": {
        ...{
          model: new Map([...first, ["fc.weight", head]]),
          optimizer: momentum,
          lr_scheduler: dict({ last_epoch: 3 }),
        },
        ...{ epoch: 89, args: dict({ model: "resnet18" }) },
      },
      "detectron2's trainer": {
        model: under("backbone.bottom_up.", first, detectron2Name),
        ...{ optimizer: momentum, scheduler: dict({ last_epoch: 3 }), iteration: 89999 },
      },
      "Lightning": {
        ...{ epoch: 3, global_step: 9, "pytorch-lightning_version": "2.0" },
        state_dict: new Map([...under("model.backbone.", first), ["model.head.weight", head]]),
        optimizer_states: [momentum],
      },
      "VISSL": {
        classy_state_dict: dict({
          base_model: dict({
            model: dict({ trunk: under("_feature_blocks.", first), heads: dict({ "0.clf.weight": head }) }),
          }),
        }),
      },
      "SwAV": new Map([...under("module.", first), ["module.prototypes.weight", head]]),
      "MoCo": {
        ...{ epoch: 200, arch: "resnet18", optimizer: momentum },
        state_dict: new Map([
          ...under("module.encoder_q.", second),
          ...["fc.0", "fc.2"].map((name) => [`module.encoder_q.${name}.weight`, head] as const),
          ...under("module.encoder_k.", first),
          ...["fc.0", "fc.2"].map((name) => [`module.encoder_k.${name}.weight`, head] as const),
          ["module.queue", head],
        ]),
      },
      "DINO": {
        student: under("module.backbone.", second),
        teacher: under("backbone.", first),
        ...{ optimizer: momentum, epoch: 3, args: dict({ arch: "resnet18" }) },
      },
      "BYOL": { online_encoder: under("", second), target_encoder: under("", first) },
      "torchvision's average": { model: under("", second), model_ema: under("module.", first), epoch: 1 },
      "the published code with an optimiser of two groups": {
        model: new Map([
          ...under("module.encoder_q.", second),
          ...under("module.encoder_k.", first),
          ["module.grouping_q.slot_embed.weight", head],
        ]),
        ...{ optimizer: momentum, epoch: 1 },
      },
    };
    for (const [name, content] of Object.entries(files)) {
      const value = content instanceof Map ? content as never : dict(content as Record<string, unknown>);
      const found = await convertedFrom(folder, value, "safetensors");
      assert.deepEqual(
        (await Effect.runPromise(readSafetensors(found, name))).tensors,
        (await Effect.runPromise(readSafetensors(expected, name))).tensors,
        name,
      );
      for (const to of ["backbone", "mmseg", "detectron2", "onnx"] as const) {
        assert.ok(!(await convertedFrom(folder, value, to)).includes("fc."), `${name} as ${to}`);
      }
    }
    const student = { student: under("module.", second), teacher: under("", first) };
    const found = await convertedFrom(folder, dict(student), "safetensors", "student");
    assert.ok(found.equals(await convertedFrom(folder, under("", second) as never, "safetensors")));
  }),
);

Deno.test(
  "convert() takes bf16 to every format",
  inTestFolder(async (folder) => {
    const bf16 = new Map([...first].map(([name, tensor]) => [
      name,
      tensor.dtype === "F32"
        ? {
          ...tensor,
          dtype: "BF16",
          data: new Uint16Array(new Uint32Array(tensor.data.buffer).map((bits) => bits >>> 16)),
        }
        : tensor,
    ]));
    for (const to of FORMATS.filter((to) => !["slotcon", "pth", "mmseg-segmentor"].includes(to))) {
      assert.ok((await convertedFrom(folder, bf16 as never, to)).length > 0, to);
    }
  }),
);

Deno.test(
  "what reads weights refuses values that are not finite in 32 bits, whatever their type, by the tensor's name",
  inTestFolder(async (folder) => {
    const { shape } = first.get("bn1.bias")!;
    const bad: Record<string, FileTensor> = {
      "a NaN": { dtype: "F32", shape, data: Float32Array.of(0, NaN) },
      "an infinity of 16 bits": { dtype: "F16", shape, data: Float16Array.of(-Infinity, 0) },
      "a NaN of bf16": { dtype: "BF16", shape, data: Uint16Array.of(0x7fc0, 0) },
      "a number beyond 32 bits": { dtype: "F64", shape, data: Float64Array.of(1e300, 0) },
    };
    const expected = /1 of the 2 values of bn1\.bias are not finite in 32 bits/;
    for (const [name, tensor] of Object.entries(bad)) {
      const value = new Map([...first, ["bn1.bias", tensor]]) as never;
      for (const to of ["backbone", "mmseg", "detectron2", "safetensors", "onnx"] as const) {
        assert.match(await refusal(convertedFrom(folder, value, to)), expected, `${name} to ${to}`);
      }
      const frozen = openWeights(join(folder, "weights.pth")).pipe(
        Effect.flatMap((weights) => frozenEncoder(weights, "teacher")),
        Effect.scoped,
      );
      assert.match(await refusal(Effect.runPromise(frozen)), expected, name);
    }
  }),
);

Deno.test(
  "convert() refuses an encoder that lacks something, or that is one of several, for all formats alike",
  inTestFolder(async (folder) => {
    const without = (lost: RegExp) => new Map([...first].filter(([name]) => !lost.test(name)));
    for (const to of ["backbone", "mmseg", "detectron2", "safetensors", "onnx"] as const) {
      assert.match(
        await refusal(convertedFrom(folder, without(/^layer4/) as never, to)),
        /no known architecture .*; nearest is resnet18, but it has no layer4.0.conv1.weight; /,
      );
      assert.match(
        await refusal(convertedFrom(folder, without(/^layer2.0.bn1.running_var/) as never, to)),
        /nearest is resnet18, but it has no layer2.0.bn1.running_var$/,
      );
      assert.match(
        await refusal(convertedFrom(folder, dict({ left: first, right: second }), to)),
        /it has 2 encoders, under "left.", "right.", and no name tells which/,
      );
    }
    assert.match(
      await refusal(
        convertedFrom(folder, dict({ weights: dict({ "a.b": head }), epoch: 3, args: dict({}) }), "onnx"),
      ),
      /it has 1 tensors, such as "weights.a.b" in the entries weights, epoch, args, but no ResNet's/,
    );
  }),
);
