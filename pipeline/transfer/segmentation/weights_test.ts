import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { Effect } from "effect";
import { inTestFolder } from "../../../data/_test_kit.ts";
import type { FileTensor } from "../../../data/formats/file_tensor.ts";
import type { PickleInput } from "../../../data/formats/pickle/write.ts";
import { writeTorch } from "../../../data/formats/torch/write.ts";
import { input } from "../../../ops/graph/tensor.ts";
import { untrainedEncoder } from "../../inference/frozen_encoder.ts";
import { type Network, normalized, parameter, within } from "../../model/network.ts";
import { encoder } from "../../model/resnet.ts";
import { student } from "../../model/slotcon_network.ts";
import { StateBuilder } from "../../model/state_builder.ts";
import { initialState } from "../../run/initial_state.ts";
import { fileTensor, type StateValues } from "../../run/state_layout.ts";
import { segmentorStart } from "./weights.ts";

const ENCODER = { arch: "resnet50", width: 2 } as const;

/** The state of a small segmentor with a head of one unit. */
const segmentorState = (classes: number, channels = 4): StateBuilder => {
  const state = new StateBuilder();
  const network: Network = student(state, null);
  const map = encoder(within(network, "backbone"), input("images", [1, 64, 64, 3]), ENCODER);
  const head = within(network, "decode_head");
  const init = { kind: "normal", deviation: 0.01 } as const;
  parameter(head, "conv_seg.weight", [classes, channels, 1, 1], "conv", init);
  parameter(head, "conv_seg.bias", [classes], "same", { kind: "constant", value: 0 });
  parameter(within(head, "convs.0.conv"), "weight", [channels, map.shape[3], 3, 3], "conv", init);
  normalized(within(head, "convs.0"), "bn", input("y", [1, 2, 2, channels]));
  return state;
};

const saved = (values: StateValues): Map<string, FileTensor> =>
  new Map([...values].map(([name, tensor]) => [name, fileTensor(name, tensor)]));

/** Writes tensors as mmsegmentation does, and starts from them. */
const startFrom = async (folder: string, tensors: Map<string, FileTensor>, state: StateBuilder) => {
  const file = join(folder, `${crypto.randomUUID()}.pth`);
  const contents = new Map<string, unknown>([["meta", new Map()], ["state_dict", tensors]]);
  await Deno.writeFile(file, Buffer.concat(writeTorch(contents as unknown as PickleInput)));
  return await Effect.runPromise(segmentorStart(file, state, 1));
};
const refusal = (work: Promise<unknown>): Promise<string> =>
  work.then(() => "nothing", ({ message }) => message);

Deno.test(
  "segmentorStart() fills every tensor of the backbone from an encoder, its statistics too, and starts heads anew",
  inTestFolder(async (folder) => {
    const pretrained = saved(untrainedEncoder(ENCODER, 7).values);
    pretrained.set("bn1.running_mean", { dtype: "F32", shape: [2], data: Float32Array.of(3, 4) });
    const counters = ["bn1", "layer4.2.bn3"].map((name) => `${name}.num_batches_tracked`);
    for (const name of counters) {
      pretrained.set(name, { dtype: "I64", shape: [], data: BigInt64Array.of(9n) });
    }
    assert.equal(pretrained.size, 318);
    const { values, notes } = await startFrom(folder, pretrained, segmentorState(5));
    for (const [name, { data }] of pretrained) {
      assert.deepEqual([...values.get(`backbone.${name}`)!.data], Array.from(data, Number), name);
    }
    const anew = initialState(segmentorState(5), 1);
    assert.equal(values.size, anew.size);
    for (const [name, { data }] of anew) {
      if (!name.startsWith("backbone.")) assert.deepEqual(values.get(name)!.data, data);
    }
    assert.match(notes.join(), /^Weights from "[^"]+": backbone$/);

    const without = new Map([...pretrained].filter(([name]) => !name.endsWith("num_batches_tracked")));
    const uncounted = await startFrom(folder, without, segmentorState(5));
    assert.deepEqual([...uncounted.values.get("backbone.bn1.num_batches_tracked")!.data], [0]);
  }),
);

Deno.test(
  "segmentorStart() names the layers that a file lacks, and those of another architecture",
  inTestFolder(async (folder) => {
    const whole = saved(untrainedEncoder(ENCODER, 7).values);
    const without = (name: string) => new Map([...whole].filter(([other]) => other !== name));
    for (const name of ["layer3.2.bn1.running_var", "layer2.0.bn2.num_batches_tracked"]) {
      assert.ok(
        (await refusal(startFrom(folder, without(name), segmentorState(5)))).includes(`it has no ${name}`),
      );
    }
    const other = saved(untrainedEncoder({ arch: "resnet18", width: 2 }, 7).values);
    assert.match(
      await refusal(startFrom(folder, other, segmentorState(5))),
      /^Cannot start from "[^"]+": its encoder, resnet18 with 2 channels.* layer1\.0\.conv1\.weight is \[2, 2, 3, 3\], not \[2, 2, 1, 1\]/,
    );
    const broken = new Map(whole);
    broken.set("bn1.bias", { dtype: "F32", shape: [2], data: Float32Array.of(NaN, 0) });
    assert.match(
      await refusal(startFrom(folder, broken, segmentorState(5))),
      /1 of the 2 values of backbone\.bn1\.bias are not finite/,
    );
  }),
);

Deno.test(
  "segmentorStart() takes all of a segmentor, but for a classifier of other classes and heads of other layers",
  inTestFolder(async (folder) => {
    const segmentor = initialState(segmentorState(5), 7);
    const all = await startFrom(folder, saved(segmentor), segmentorState(5));
    for (const [name, { data }] of segmentor) assert.deepEqual(all.values.get(name)!.data, data, name);
    assert.match(all.notes.join(), /: backbone, decode_head$/);

    const anew = initialState(segmentorState(3), 1);
    const others = await startFrom(folder, saved(segmentor), segmentorState(3));
    const taken = "decode_head.convs.0.conv.weight", own = "decode_head.conv_seg.weight";
    assert.deepEqual(others.values.get(taken)!.data, segmentor.get(taken)!.data);
    assert.deepEqual(others.values.get(own)!.data, anew.get(own)!.data);
    assert.match(
      others.notes[1],
      /classifier of decode_head starts anew: the file's has 5 classes, this run 3/,
    );

    const narrower = await startFrom(folder, saved(segmentor), segmentorState(5, 3));
    assert.match(
      narrower.notes.join("\n"),
      /: backbone\ndecode_head starts anew: the file's has other layers$/,
    );
  }),
);
