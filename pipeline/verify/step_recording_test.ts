import assert from "node:assert/strict";
import { Effect } from "effect";
import { readSafetensors, type TensorFile } from "../../data/formats/safetensors.ts";
import { gpuTest, subgroupTest } from "../../ops/_test_kit.ts";
import { type Choices, TunedChoices } from "../../ops/compiler/kernel_selection.ts";
import { onRanks } from "../../ops/runtime/_test_ranks.ts";
import { verifyStep } from "./step_recording.ts";

const read = (name: string) =>
  readSafetensors(Deno.readFileSync(new URL(`../../testdata/steps/${name}`, import.meta.url)), name);

const recordingOfTwo = read("resnet18_world2.safetensors");

for (const name of ["resnet18_lars_first", "resnet18_world2", "resnet50_sgd_first"]) {
  gpuTest(
    `verifyStep() holds for everything in ${name} and computes it in the recorded shapes`,
    function* () {
      const recording = yield* read(`${name}.safetensors`);
      const { rows, outputs } = yield* verifyStep(recording, name);
      for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
      assert.equal(rows.length, 9);
      for (const [tensor, { dtype, shape }] of recording.tensors) {
        if (!tensor.includes("/expect/")) continue;
        const computed = outputs.get(tensor)!;
        assert.deepEqual({ dtype: computed.dtype, shape: computed.shape }, { dtype, shape }, tensor);
      }
    },
  );
}

const holdsWith = (wanted: string) =>
  function* () {
    const choices: Choices = (_, variants) =>
      variants.find((name) => name.includes(wanted)) ?? variants.at(-1);
    const { rows } = yield* verifyStep(yield* recordingOfTwo, wanted).pipe(
      Effect.provideService(TunedChoices, () => choices),
    );
    for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
    assert.equal(rows.length, 9);
  };

const everything = "verifyStep() holds for everything in resnet18_world2 with other kernels";
for (const wanted of ["winograd 4×4", "winograd 2×2", "panels", "the last guess"]) {
  gpuTest(`${everything}: ${wanted}`, holdsWith(wanted));
}
await subgroupTest(`${everything}: by subgroups`, holdsWith("by subgroups"));

gpuTest("verifyStep() holds when as many processes as were recorded replay their own part", function* () {
  const recording = yield* recordingOfTwo;
  const results = yield* onRanks(2, () => verifyStep(recording, "world2"));
  for (const { rows } of results) {
    for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
    assert.equal(rows.length, 9);
  }
  const compared = results[0].rows.reduce((sum, { tensors }) => sum + tensors!, 0);
  const alone = yield* verifyStep(recording, "world2");
  const common = [...recording.tensors.keys()].filter((name) => /^step\d+\/expect/.test(name)).length;
  assert.equal(compared, alone.rows.reduce((sum, { tensors }) => sum + tensors!, 0) + common);
  const three = yield* Effect.flip(Effect.map(onRanks(3, () => verifyStep(recording, "x")), String));
  assert.match(three.message, /of 2 ranks, which 3 processes cannot replay/);
});

/** The recording with one tensor replaced, or left out. */
const changed = (
  { tensors, metadata }: TensorFile,
  name: string,
  change: ((data: Float32Array) => Float32Array) | null,
) => {
  const rest = new Map(tensors);
  const tensor = rest.get(name)!;
  if (change === null) rest.delete(name);
  else rest.set(name, { ...tensor, data: change((tensor.data as Float32Array).slice()) });
  return { tensors: rest, metadata };
};

gpuTest("verifyStep() sees a missing update that is far smaller than the tensor", function* () {
  const recording = yield* read("resnet18_lars_first.safetensors");
  const name = "encoder_q.layer1.0.conv1.weight"; // its gradient is 0: LARS shrinks it by 0.1 % of the rate
  const before = recording.tensors.get(`init/${name}`)!.data as Float32Array;
  const { rows } = yield* verifyStep(
    changed(recording, `step0/expect/after/${name}`, () => before),
    "changed",
  );
  const failed = rows.filter(({ holds }) => !holds);
  assert.deepEqual(failed.map(({ group, note }) => [group, note]), [
    ["state after the step", `step0/expect/after/${name}`],
  ]);
});

gpuTest("verifyStep() names a tensor that is missing, misshapen, or not of its steps", function* () {
  const recording = yield* read("resnet18_lars_first.safetensors");
  const flags = "step0/rank0/flags1", gradient = "step0/expect/grad/encoder_q.bn1.weight";
  const missing = yield* Effect.flip(verifyStep(changed(recording, flags, null), "a.safetensors"));
  assert.match(missing.message, /"a.safetensors".*no tensor "step0\/rank0\/flags1"/);

  const tensors = new Map(recording.tensors);
  tensors.set(gradient, { ...tensors.get(gradient)!, shape: [2, 4] });
  const misshapen = yield* Effect.flip(verifyStep({ ...recording, tensors }, "a.safetensors"));
  assert.match(misshapen.message, /"step0\/expect\/grad\/encoder_q.bn1.weight" must be \[8\].* \[2, 4\]/);

  const config = JSON.stringify({ ...JSON.parse(recording.metadata.config), arch: "resnet18_d" });
  const other = { ...recording, metadata: { ...recording.metadata, config } };
  const misconfigured = yield* Effect.flip(verifyStep(other, "a.safetensors"));
  assert.match(misconfigured.message, /no tensor "init\/encoder_q.conv1.0.weight"/);
});
