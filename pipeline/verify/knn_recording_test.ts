import assert from "node:assert/strict";
import { Effect } from "effect";
import { readSafetensors } from "../../data/formats/safetensors.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import { verifyKnn } from "./knn_recording.ts";

const name = "knn.safetensors";
const bytes = Deno.readFileSync(new URL(`../../testdata/knn/${name}`, import.meta.url));

gpuTest("verifyKnn() holds for everything that was recorded", function* () {
  const recording = yield* readSafetensors(bytes, name);
  const { rows, outputs } = yield* verifyKnn(recording, name);
  for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
  const recorded = [...recording.tensors].filter(([name]) => name === "images" || name.startsWith("expect/"));
  assert.deepEqual([...outputs.keys()].sort(), recorded.map(([name]) => name).sort());
  for (const [tensor, { dtype, shape, data }] of recorded) {
    const got = outputs.get(tensor)!;
    assert.deepEqual([got.dtype, got.shape], [dtype, shape], tensor);
    assert.equal(got.data.constructor, data.constructor);
    assert.equal(got.data.length, data.length);
  }
});

gpuTest("verifyKnn() tells what differs, and refuses what is no whole recording", function* () {
  const damaged = yield* readSafetensors(bytes.slice(), name);
  const idxs = damaged.tensors.get("expect/idxs")!.data as BigInt64Array;
  [idxs[0], idxs[1]] = [idxs[1], idxs[0]];
  const segments = damaged.tensors.get("expect/segments")!.data as Uint8Array;
  for (let i = 0; i < 62; i++) segments[i] ^= 1; // of 31360: almost 0.2 %
  const { rows } = yield* verifyKnn(damaged, name);
  const failed = rows.filter(({ holds }) => !holds).map(({ group, worst, note }) => ({ group, worst, note }));
  assert.deepEqual(failed, [
    { group: "nearest pictures", worst: 2, note: "expect/idxs" },
    { group: "winners of pixels", worst: 62 / 31360, note: "expect/segments" },
  ]);

  const extra = new Map([...damaged.tensors, ["expect/other", damaged.tensors.get("expect/dots")!]]);
  const { rows: more } = yield* verifyKnn({ ...damaged, tensors: extra }, name);
  assert.deepEqual(more.find(({ group }) => group === "recorded but not computed")?.holds, false);

  for (const lost of ["pixels", "expect/idxs", "expect/dots", "model/grouping_k.slot_embed.weight"]) {
    const tensors = new Map([...damaged.tensors].filter(([name]) => name !== lost));
    const { message } = yield* Effect.flip(verifyKnn({ ...damaged, tensors }, name));
    assert.match(message, new RegExp(`knn.safetensors.*${lost.replace("model/", "")}`));
  }
});
