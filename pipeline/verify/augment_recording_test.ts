import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { readSafetensors } from "../../data/formats/safetensors.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import { verifyAugment } from "./augment_recording.ts";

const folder = new URL("../../testdata/augment/", import.meta.url);
const pictures = fileURLToPath(new URL("pictures/", folder));
const name = "augment.safetensors";
const bytes = Deno.readFileSync(new URL(name, folder));

gpuTest(
  "verifyAugment() holds for every recorded stage, with no difference but in decoded JPEG files",
  function* () {
    const recording = yield* readSafetensors(bytes, name);
    const { rows, outputs } = yield* verifyAugment(recording, { name, pictures });
    for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
    const different = rows.filter(({ group, worst }) => worst > 0 && group !== "decoded JPEG");
    assert.deepEqual(different, []);
    assert.deepEqual([...outputs.keys()].sort(), [...recording.tensors.keys()].sort());
    for (const [tensor, { dtype, shape }] of outputs) {
      const recorded = recording.tensors.get(tensor)!;
      assert.deepEqual({ dtype, shape }, { dtype: recorded.dtype, shape: recorded.shape }, tensor);
    }
  },
);

gpuTest("verifyAugment() tells which stage differs, and by how much", function* () {
  const damaged = yield* readSafetensors(bytes.slice(), name);
  const stage = damaged.tensors.get("draw1/view0/5_blur")!.data;
  for (let i = 0; i < 49; i++) stage[i] = (stage[i] as number) ^ 1; // of 4800 values: more than 1 %
  const { rows } = yield* verifyAugment(damaged, { name, pictures });
  const failed = rows.filter(({ holds }) => !holds).map(({ group, worst, note }) => ({ group, worst, note }));
  assert.deepEqual(failed.map(({ group }) => group), ["blur", "tensor"]); // the tensor follows from that stage
  assert.deepEqual(failed[0], {
    group: "blur",
    worst: 1,
    note: "draw1/view0/5_blur, 1.02 % of its values differ",
  });
});

gpuTest("verifyAugment() names the tensor or the picture that is missing", function* () {
  const recording = yield* readSafetensors(bytes, name);
  const tensors = new Map(recording.tensors);
  tensors.delete("draw0/flags");
  const incomplete = yield* Effect.flip(verifyAugment({ ...recording, tensors }, { name, pictures }));
  assert.match(incomplete.message, /"augment.safetensors".*"draw0\/flags"/);
  const elsewhere = yield* Effect.flip(verifyAugment(recording, { name, pictures: "/nowhere" }));
  assert.match(elsewhere.message, /\/nowhere\/astronaut_444.jpg/);
});
