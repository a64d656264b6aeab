import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest } from "../../ops/_test_kit.ts";
import { onRanks } from "../../ops/runtime/_test_ranks.ts";
import { changed, segmentationRecording } from "./_test_segmentation.ts";
import { verifySegmentationStep } from "./segmentation_step_recording.ts";

for (const name of ["step_d16", "step_d8"]) {
  gpuTest(
    `verifySegmentationStep() holds for everything in ${name} and computes it in the recorded shapes`,
    function* () {
      const recording = yield* segmentationRecording(name);
      const { rows, outputs } = yield* verifySegmentationStep(recording, name);
      for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
      assert.equal(rows.length, 9);
      for (const [tensor, { shape }] of recording.tensors) {
        if (tensor.includes("/expect/")) assert.deepEqual(outputs.get(tensor)?.shape, shape, tensor);
      }
    },
  );
}

gpuTest("verifySegmentationStep() holds where processes share the recorded batch", function* () {
  const recording = yield* segmentationRecording("step_d8");
  const results = yield* onRanks(2, () => verifySegmentationStep(recording, "d8"));
  for (const { rows } of results) {
    for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
    assert.equal(rows.length, 9);
  }
  const three = yield* Effect.flip(onRanks(3, () => verifySegmentationStep(recording, "d8")));
  assert.match(String(three), /batch of 2, which 3 processes cannot share/);
});

gpuTest("verifySegmentationStep() sees another step behind the same recording", function* () {
  const recording = yield* segmentationRecording("step_d16");
  const cases = [
    [{ align_corners: false }, "losses"],
    [{ dilations: [1, 1, 1, 4] }, "maps"],
    [{ head_dilation: 3 }, "maps"],
    [{ weight_decay: 0 }, "parameters after the step"],
    [{ policy: { policy: "step", step: [22], gamma: 0.1 } }, "learning rates"],
  ] as const;
  for (const [change, group] of cases) {
    const { rows } = yield* verifySegmentationStep(changed(recording, change), "changed");
    const failed = rows.filter(({ holds }) => !holds).map((row) => row.group);
    assert.ok(failed.includes(group), `${JSON.stringify(change)}: ${failed}`);
  }
});

gpuTest("verifySegmentationStep() says what a configuration lacks, in a line", function* () {
  const recording = yield* segmentationRecording("step_d8");
  const cases = [
    [{ strides: [1, 2, 2, 3] }, /strides 1, 2, 2, 3, which no encoder has/],
    [{ depth: 51 }, /a ResNet of depth 51/],
    [{ contract_dilation: false }, /dilations that are not contracted/],
    [{ kind: "d4", strides: undefined }, /kind "d4" without strides; known kinds are d16 and d8/],
    [{ aux: undefined }, /weighs an auxiliary head by 0.4, but has no "aux" channels/],
    [{ batch: 0 }, /its metadata is not that of recorded steps of a segmentor: .*batch/],
    [{ head: 11 }, /"init\/decode_head.conv_seg.weight" must be \[5, 11, 1, 1\] by its config/],
    [{ crop: [64, 64] }, /"step0\/labels" must be \[2, 64, 64\] by its config, it is \[2, 64, 72\]/],
  ] as const;
  for (const [change, expected] of cases) {
    const error = yield* Effect.flip(verifySegmentationStep(changed(recording, change), "a.safetensors"));
    assert.match(error.message, expected);
    assert.match(error.message, /"a.safetensors"/);
    assert.ok(!error.message.includes("\n"));
  }
});
