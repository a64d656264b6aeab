import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { inTestFolder } from "../../data/_test_kit.ts";
import { openRecording } from "./open_recording.ts";

const testdata = fileURLToPath(new URL("../../testdata/", import.meta.url));

Deno.test(
  "openRecording() knows the kind by the content, whatever the name",
  inTestFolder(async (folder) => {
    for (
      const [file, kind] of [
        ["steps/resnet18_lars_first.safetensors", "step"],
        ["augment/augment.safetensors", "augment"],
        ["knn/knn.safetensors", "retrieval"],
        ["schedule/schedules.json", "schedule"],
        ["segmentation/input.safetensors", "segmentationInput"],
        ["segmentation/sizes.json", "segmentationSizes"],
        ["segmentation/step_d8.safetensors", "segmentationStep"],
        ["segmentation/inference_d8.safetensors", "segmentationInference"],
        ["segmentation/schedule.json", "segmentationRates"],
        ["segmentation/models.json", "segmentationModels"],
      ]
    ) {
      await Deno.copyFile(testdata + file, `${folder}/recording.jpg`);
      assert.equal((await Effect.runPromise(openRecording(`${folder}/recording.jpg`))).kind, kind);
    }
    for (const file of ["evaluation.json", "evaluation.safetensors"]) {
      const { kind } = await Effect.runPromise(openRecording(`${testdata}segmentation/${file}`));
      assert.equal(kind, "evaluation");
    }
  }),
);

Deno.test("openRecording() says in one line what it looked for and what it found", async () => {
  for (
    const [file, found] of [
      ["augment/pictures/coffee_420.jpg", /no safetensors file; looked for .*slotcon-step-recording\/1/],
      ["../deno.json", /it is JSON of no format; looked for .*slotcon-schedules\/1/],
      ["steps", /it is a folder/],
      ["nowhere", /there is no such file/],
    ] as const
  ) {
    const { message } = await Effect.runPromise(Effect.flip(openRecording(testdata + file)));
    assert.match(message, found);
    assert.ok(!message.includes("\n"));
  }
});
