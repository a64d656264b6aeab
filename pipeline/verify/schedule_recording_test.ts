import assert from "node:assert/strict";
import { Effect } from "effect";
import recording from "../../testdata/schedule/schedules.json" with { type: "json" };
import { verifySchedule } from "./schedule_recording.ts";

Deno.test("verifySchedule() holds for every recorded rate, momentum and counter", () => {
  const { rows, outputs } = Effect.runSync(verifySchedule(recording, "schedules.json"));
  assert.equal(rows.length, 6);
  for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
  assert.equal(outputs.get("schedule6/lr")!.data[0], recording.schedules[6].lr[0]);
});

Deno.test("verifySchedule() names the step at which a rate differs", () => {
  const damaged = structuredClone(recording);
  damaged.schedules[1].lr[7] *= 1 + 1e-11;
  const { rows } = Effect.runSync(verifySchedule(damaged, "schedules.json"));
  const failed = rows.filter((row) => !row.holds);
  assert.deepEqual(failed.map((row) => row.group), ["learning rate"]);
  assert.match(failed[0].note!, /step 7, "cocoplus/);
});

Deno.test("verifySchedule() refuses other JSON by the name of its file", () => {
  const error = Effect.runSync(Effect.flip(verifySchedule({ schedules: [] }, "other.json")));
  assert.match(error.message, /"other.json".*format/s);
});
