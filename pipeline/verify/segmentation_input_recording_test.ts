import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { readSafetensors } from "../../data/formats/safetensors.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import { verifySegmentationInput } from "./segmentation_input_recording.ts";

const name = "input.safetensors";
const folder = fileURLToPath(new URL("../../testdata/segmentation/", import.meta.url));
const bytes = Deno.readFileSync(folder + name);

gpuTest(
  "verifySegmentationInput() holds for every recorded size, box, digest and stage, to the bit",
  function* () {
    const recording = yield* readSafetensors(bytes, name);
    const { rows, outputs } = yield* verifySegmentationInput(recording, { name, folder });
    for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
    const recorded = [...recording.tensors.keys()].filter((tensor) => !tensor.endsWith("label_file"));
    assert.deepEqual([...outputs.keys()].sort(), recorded.sort());
  },
);

gpuTest("verifySegmentationInput() tells which stage differs, and what is missing", function* () {
  const damaged = yield* readSafetensors(bytes.slice(), name);
  const hue = damaged.tensors.get("draw4/picture_4_2_hue")!.data as Uint8Array;
  hue[7] ^= 1;
  const draws = JSON.parse(damaged.metadata.draws);
  draws[5].crop_tries.splice(3, 1); // ten are turned down: the eleventh is then missing
  draws[7].crop_tries.push([0, 0]); // after one that is accepted
  draws[2].resized_size[0]++;
  const changed = { ...damaged, metadata: { ...damaged.metadata, draws: JSON.stringify(draws) } };
  const { rows } = yield* verifySegmentationInput(changed, { name, folder });
  const failed = new Map(rows.filter(({ holds }) => !holds).map(({ group, note }) => [group, note]));
  assert.equal(failed.get("hue"), "draw4/picture_4_2_hue");
  assert.equal(failed.get("sizes"), "resized_size of draw 2");
  assert.equal(failed.get("boxes"), "boxes of draw 5");
  assert.ok(!failed.has("brightness") && !failed.has("resized, by digest"));

  const tensors = new Map(damaged.tensors);
  tensors.delete("draw3/picture_2_cropped");
  const { message } = yield* Effect.flip(verifySegmentationInput({ ...damaged, tensors }, { name, folder }));
  assert.match(message, /input.safetensors.*"draw3\/picture_2_cropped"/);
  const elsewhere = yield* Effect.flip(
    verifySegmentationInput(damaged, { name, folder: "/nowhere/segmentation" }),
  );
  assert.match(elsewhere.message, /\/nowhere\/augment\/pictures\/coffee_restart.jpg/);
});
