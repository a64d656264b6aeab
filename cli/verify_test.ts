import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import { inTestFolder } from "../data/_test_kit.ts";
import { readSafetensors } from "../data/formats/safetensors.ts";
import { mpiTest } from "../pipeline/ranks/_test_mpi.ts";
import { runSlotcon } from "./_test_kit.ts";

const root = join(import.meta.dirname!, "..");
const augment = join(root, "testdata/augment/augment.safetensors");
const schedules = join(root, "testdata/schedule/schedules.json");

const verify = (folder: string, ...args: string[]) => runSlotcon(folder, "verify", ...args);

const tensorsOf = async (file: string) =>
  (await Effect.runPromise(readSafetensors(await Deno.readFile(file), file))).tensors;

Deno.test(
  "slotcon verify --out keeps all that was computed under the recording's own names",
  inTestFolder(async (folder) => {
    const { code, out } = await verify(folder, augment, "--out", "computed.safetensors");
    assert.equal(code, 0, out);
    assert.match(out, /^augment.safetensors, augmentation: all hold/);
    const computed = await tensorsOf(`${folder}/computed.safetensors`);
    assert.deepEqual([...computed.keys()].sort(), [...(await tensorsOf(augment)).keys()].sort());

    const several = await verify(folder, augment, schedules, "--out", "both.safetensors");
    assert.equal(several.code, 1);
    assert.match(several.err, /^slotcon: --out: .* found 2 recordings\n$/);
  }),
);

Deno.test(
  "slotcon verify --json prints one object and fails where one recording does, whatever the others do",
  inTestFolder(async (folder) => {
    const recording = JSON.parse(await Deno.readTextFile(schedules));
    recording.schedules[0].lr[1] *= 2;
    await Deno.writeTextFile(`${folder}/wrong.json`, JSON.stringify(recording));
    const { code, out, err } = await verify(folder, "none.json", "wrong.json", schedules, "--json");
    assert.equal(code, 1);
    const report = JSON.parse(out);
    assert.deepEqual(report.recordings.map(({ holds }: { holds: boolean }) => holds), [false, false, true]);
    assert.equal(report.holds, false);
    assert.match(report.recordings[0].error, /"none.json": there is no such file/);
    assert.equal(err.trimEnd().split("\n").length, 1);
    const rates = report.recordings[1].groups.find(({ group }: { group: string }) =>
      group === "learning rate"
    );
    assert.deepEqual({ holds: rates.holds, worst: rates.worst }, { holds: false, worst: 0.5 });
  }),
);

mpiTest(
  "slotcon verify --ranks replays a recording of two ranks by two processes over MPI",
  inTestFolder(async (folder) => {
    const recording = new URL("../testdata/steps/resnet18_world2.safetensors", import.meta.url).pathname;
    const { code, out, err } = await verify(folder, "--ranks", "2", recording, "--json");
    assert.equal(code, 0, err);
    const [{ groups }] = JSON.parse(out).recordings;
    assert.equal(groups.length, 9);
    const alone = await verify(folder, "--ranks", "3", recording);
    assert.equal(alone.code, 1);
    assert.match(alone.err, /of 2 ranks, which 3 processes cannot replay: start 2 of them, or one/);
  }),
);
