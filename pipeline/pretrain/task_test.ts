import assert from "node:assert/strict";
import { Effect } from "effect";
import { inTestFolder } from "../../data/_test_kit.ts";
import { openSafetensors } from "../../data/formats/safetensors.ts";
import { openBytes } from "../../data/files/byte_source.ts";
import { loadCheckpoint, saveCheckpoint } from "../run/checkpoint_file.ts";
import { PRETRAIN } from "./task.ts";

const before = new URL("../../testdata/checkpoint/without_task.safetensors", import.meta.url).pathname;

const metadataOf = (file: string) =>
  openBytes(file).pipe(
    Effect.flatMap(openSafetensors),
    Effect.map(({ metadata }) => metadata),
    Effect.scoped,
    Effect.runPromise,
  );

Deno.test(
  "a checkpoint that names no task is one of pretraining, and saved again differs by the task alone",
  inTestFolder(async (folder) => {
    const { task, meta, tensors } = await Effect.runPromise(loadCheckpoint(before, PRETRAIN));
    assert.equal(task, "pretrain");
    assert.deepEqual([meta.step, meta.teacherCounter, meta.instances, meta.config.optimizer], [
      7,
      9,
      40,
      "sgd",
    ]);
    const file = await Effect.runPromise(saveCheckpoint(folder, PRETRAIN, { meta, tensors }));
    const [{ sha256: _, ...old }, { sha256: __, ...now }] = [
      await metadataOf(before),
      await metadataOf(file),
    ];
    assert.deepEqual(now, { ...old, task: "pretrain" });
    const values = async (path: string) => {
      const bytes = await Deno.readFile(path);
      return bytes.subarray(8 + Number(new DataView(bytes.buffer).getBigUint64(0, true)));
    };
    assert.deepEqual(await values(file), await values(before));
  }),
);
