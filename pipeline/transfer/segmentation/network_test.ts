import assert from "node:assert/strict";
import { Effect } from "effect";
import { input } from "../../../ops/graph/tensor.ts";
import { sizeOf } from "../../../ops/graph/shape.ts";
import recorded from "../../../testdata/segmentation/models.json" with { type: "json" };
import { student } from "../../model/slotcon_network.ts";
import { StateBuilder } from "../../model/state_builder.ts";
import { singleProcess } from "../../ranks/sync.ts";
import { checkpointShapes } from "../../run/state_layout.ts";
import { type RecipeName, SEGMENTATION_OPTIONS } from "./config.ts";
import { segmentor } from "./network.ts";

for (const [name, { parameters, tensors }] of Object.entries(recorded.models)) {
  Deno.test(`segmentor() declares the tensors of ${name}'s published model, in their order`, () => {
    const config = Effect.runSync(SEGMENTATION_OPTIONS.configure(name as RecipeName));
    const classes = (tensors.find(([tensor]) => tensor === "decode_head.conv_seg.bias")![1] as number[])[0];
    const state = new StateBuilder();
    const images = input("images", [2, config.cropSize, config.cropSize, 3]);
    const network = student(state, { groups: 1, sync: singleProcess });
    const { stages, head: { logits } } = segmentor(network, images, { ...config, classes });
    const shapes = [...checkpointShapes(state)];
    assert.deepEqual(shapes, tensors.map(([tensor, shape]) => [tensor, shape]));
    const trained = [...state.declared.values()].filter(({ role }) => role === "trained");
    assert.equal(trained.reduce((sum, { shape }) => sum + sizeOf(shape), 0), parameters);
    const backbone = shapes.filter(([tensor]) => tensor.startsWith("backbone."));
    assert.deepEqual(backbone.map(([tensor]) => tensor.slice("backbone.".length)), recorded.backbone_keys);
    const side = Math.ceil(config.cropSize / config.outputStride);
    assert.deepEqual(logits.shape, [2, side, side, classes]);
    assert.deepEqual(stages.map(({ shape }) => shape[3]), [256, 512, 1024, 2048]);
  });
}
