import assert from "node:assert/strict";
import { Effect } from "effect";
import recording from "../../testdata/segmentation/schedule.json" with { type: "json" };
import { verifySegmentationRates } from "./segmentation_rates_recording.ts";

Deno.test("verifySegmentationRates() holds for every recorded rate", () => {
  const { rows, outputs } = Effect.runSync(verifySegmentationRates(recording, "schedule.json"));
  assert.equal(rows.length, recording.schedules.length);
  for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
  assert.equal(outputs.get("voc/rate")!.data.length, recording.schedules[0].rate.length);
});

Deno.test("verifySegmentationRates() names the iteration at which a rate differs", () => {
  const damaged = structuredClone(recording);
  damaged.schedules[0].rate[24] *= 10; // a milestone that comes one iteration late
  const { rows } = Effect.runSync(verifySegmentationRates(damaged, "schedule.json"));
  assert.deepEqual(
    rows.filter(({ holds }) => !holds).map(({ group, note }) => [group, note]),
    [["learning rate, voc", "iteration 21000"]],
  );
});

Deno.test("verifySegmentationRates() refuses other JSON by the name of its file", () => {
  const error = Effect.runSync(
    Effect.flip(verifySegmentationRates({ schedules: [{ policy: 1 }] }, "a.json")),
  );
  assert.match(error.message, /"a.json".*no recording of fine-tuning's schedules/);
});
