import assert from "node:assert/strict";
import { Effect } from "effect";
import recording from "../../testdata/segmentation/models.json" with { type: "json" };
import { verifyModels } from "./models_recording.ts";

Deno.test("verifyModels() holds for all tensors of the published segmentors", () => {
  const { rows } = Effect.runSync(verifyModels(recording, "models.json"));
  assert.equal(rows.length, 9);
  for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.note}`);
});

Deno.test("verifyModels() names the first tensor that differs, and models that no recipe makes", () => {
  const damaged = structuredClone(recording);
  damaged.models.voc.tensors[318] = ["decode_head.conv_seg.weight", [21, 512, 1, 1], "float32"];
  damaged.models.ade20k.tensors.pop();
  const { rows } = Effect.runSync(verifyModels(damaged, "models.json"));
  assert.deepEqual(
    rows.filter(({ holds }) => !holds).map(({ group, worst, note }) => [group, worst, note]),
    [
      [
        "tensors of voc",
        1,
        "decode_head.conv_seg.weight, [21, 256, 1, 1], float32 where decode_head.conv_seg.weight, [21, 512, 1, 1], float32 is",
      ],
      [
        "tensors of ade20k",
        1,
        "auxiliary_head.convs.0.bn.num_batches_tracked, [], int64 where nothing is",
      ],
    ],
  );
  const other = { ...recording, models: { pascal: recording.models.voc } };
  const error = Effect.runSync(Effect.flip(verifyModels(other, "a.json")));
  assert.match(error.message, /"a.json".*"pascal" belongs to no recipe; known are voc, cityscapes, ade20k/);
});
