import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest } from "../../ops/_test_kit.ts";
import { changed, segmentationRecording } from "./_test_segmentation.ts";
import { verifySegmentationInference } from "./segmentation_inference_recording.ts";

for (const name of ["inference_d16", "inference_d8"]) {
  gpuTest(
    `verifySegmentationInference() holds for everything in ${name} and computes it in the recorded shapes`,
    function* () {
      const recording = yield* segmentationRecording(name);
      const { rows, outputs } = yield* verifySegmentationInference(recording, name);
      for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
      assert.deepEqual(rows.map(({ tensors }) => tensors), [1, 2, 6, 2]);
      for (const [tensor, { shape, dtype }] of recording.tensors) {
        if (!tensor.startsWith("expect/")) continue;
        assert.deepEqual([outputs.get(tensor)?.shape, outputs.get(tensor)?.dtype], [shape, dtype], tensor);
      }
    },
  );
}

gpuTest("verifySegmentationInference() sees what it should not be", function* () {
  const recording = yield* segmentationRecording("inference_d8");
  const cases = [
    [{ align_corners: true }, ["scores", "classes"]],
    [{ mean: [123.675, 116.28, 103.5] }, ["normalised image"]],
    [{ head_dilation: 2 }, ["scores", "classes"]],
  ] as const;
  for (const [change, groups] of cases) {
    const { rows } = yield* verifySegmentationInference(changed(recording, change), "changed");
    assert.deepEqual(rows.filter(({ holds }) => !holds).map(({ group }) => group), groups);
  }
  const error = yield* Effect.flip(
    verifySegmentationInference(changed(recording, { stride: [40, 24] }), "x"),
  );
  assert.match(error.message, /"expect\/slide\/windows" must be \[6, 4\] by its config, it is \[9, 4\]/);
});
