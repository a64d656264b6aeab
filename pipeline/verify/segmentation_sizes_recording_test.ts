import assert from "node:assert/strict";
import { Effect } from "effect";
import recording from "../../testdata/segmentation/sizes.json" with { type: "json" };
import { verifySegmentationSizes } from "./segmentation_sizes_recording.ts";

Deno.test("verifySegmentationSizes() holds for every recorded size, and tells which differs", () => {
  const { rows } = Effect.runSync(verifySegmentationSizes(recording, "sizes.json"));
  assert.deepEqual(rows.map(({ holds, worst }) => [holds, worst]), [[true, 0], [true, 0]]);

  const damaged = structuredClone(recording);
  damaged.test[3].resized[0]++;
  damaged.train[5].scale[1]--;
  const failed = Effect.runSync(verifySegmentationSizes(damaged, "sizes.json")).rows.filter(({ holds }) =>
    !holds
  );
  const [width, height] = recording.train[5].size;
  assert.deepEqual(failed.map(({ note }) => note), [
    "334 x 500 of voc",
    `${width} x ${height} of ${recording.train[5].recipe}`,
  ]);
  const { message } = Effect.runSync(
    Effect.flip(verifySegmentationSizes({ ...recording, img_scale: {} }, "sizes.json")),
  );
  assert.match(message, /sizes.json.*no img_scale of "voc"/);
});
