import assert from "node:assert/strict";
import { Effect } from "effect";
import { readSafetensors } from "../../data/formats/safetensors.ts";
import recording from "../../testdata/segmentation/evaluation.json" with { type: "json" };
import { verifyEvaluation } from "./evaluation_recording.ts";

const name = "evaluation.safetensors";
const bytes = Deno.readFileSync(new URL(`../../testdata/segmentation/${name}`, import.meta.url));
const { tensors } = Effect.runSync(readSafetensors(bytes, name));

Deno.test("verifyEvaluation() holds for every recorded count and figure", () => {
  const { rows, outputs } = Effect.runSync(verifyEvaluation(recording, tensors, name));
  assert.equal(rows.length, 5);
  for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
  assert.deepEqual([...outputs.get("plain/IoU")!.data].at(-1), NaN);
});

Deno.test("verifyEvaluation() tells which count differs, and 0 from 0/0", () => {
  const damaged = structuredClone(recording);
  damaged.cases[0].confusion[3][0]++;
  damaged.cases[1].IoU[4] = 0;
  const { rows } = Effect.runSync(verifyEvaluation(damaged, tensors, name));
  const failed = rows.filter(({ holds }) => !holds).map(({ worst, note }) => [worst, note]);
  assert.deepEqual(failed, [[1, "plain: confusion"], [Infinity, "reduced: IoU"]]);
});

Deno.test("verifyEvaluation() names the map that is missing", () => {
  const fewer = new Map([...tensors].filter(([name]) => name !== "reduced/2/label"));
  const { message } = Effect.runSync(Effect.flip(verifyEvaluation(recording, fewer, name)));
  assert.match(message, /evaluation.safetensors.*"reduced\/2\/label"/);
});
