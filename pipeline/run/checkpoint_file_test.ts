import assert from "node:assert/strict";
import { Effect, Logger, Schema } from "effect";
import { inTestFolder } from "../../data/_test_kit.ts";
import {
  compareState,
  latestCheckpoint,
  loadCheckpoint,
  saveCheckpoint,
  type Task,
} from "./checkpoint_file.ts";

interface TestMeta {
  readonly step: number;
  readonly teacherCounter: number;
  readonly instances: number;
  readonly config: { readonly width: number };
}
const taskOf = (name: string): Task<TestMeta> => ({
  name,
  meta: Schema.Struct({
    ...{ step: Schema.Int, teacherCounter: Schema.Int, instances: Schema.Int },
    config: Schema.Struct({ width: Schema.Int }),
  }),
});
const TEST = taskOf("test");
const config = { width: 16 };
const state = (value: number) =>
  new Map([
    ["encoder_q.conv1.weight", { shape: [2, 1, 1, 2], data: new Float32Array([value, 1, NaN, -0]) }],
    ["center", { shape: [1, 3], data: new Float32Array([1e-45, 2, 3]) }],
    ["encoder_q.bn1.num_batches_tracked", { shape: [], data: new Float32Array([value]) }],
  ]);
const save = (folder: string, step: number) =>
  Effect.runPromise(
    saveCheckpoint(folder, TEST, {
      meta: { step, teacherCounter: step + 1, instances: 12, config },
      tensors: state(step),
    }),
  );
const reason = async <A, E extends Error>(effect: Effect.Effect<A, E>) =>
  (await Effect.runPromise(Effect.flip(effect).pipe(quietly))).message;
const quietly = Effect.provide(Logger.layer([]));

Deno.test(
  "loadCheckpoint() gives back what saveCheckpoint() saved, bit for bit",
  inTestFolder(async (folder) => {
    const { meta, tensors } = await Effect.runPromise(loadCheckpoint(await save(folder, 123)));
    assert.deepEqual(meta, { step: 123, teacherCounter: 124, instances: 12, config });
    for (const [name, { shape, data }] of state(123)) {
      assert.deepEqual(tensors.get(name)?.shape, shape);
      assert.deepEqual(new Uint32Array(tensors.get(name)!.data.slice().buffer), new Uint32Array(data.buffer));
    }
  }),
);

Deno.test(
  "loadCheckpoint() refuses a file in which any byte has changed or is missing",
  inTestFolder(async (folder) => {
    const file = await save(folder, 1);
    const bytes = await Deno.readFile(file);
    for (let at = 0; at < bytes.length; at += 37) {
      const damaged = bytes.slice();
      damaged[at] ^= 1;
      await Deno.writeFile(file, damaged);
      assert.match(await reason(loadCheckpoint(file)), /^Cannot load checkpoint "/, `byte ${at}`);
    }
    await Deno.writeFile(file, bytes.subarray(0, bytes.length / 2));
    assert.match(await reason(loadCheckpoint(file)), /step_000001/);
    assert.match(await reason(loadCheckpoint(`${folder}/none`)), /there is no such file/);
  }),
);

Deno.test(
  "latestCheckpoint() takes the current one, and the one before where that is damaged",
  inTestFolder(async (folder) => {
    assert.equal(await Effect.runPromise(latestCheckpoint(folder)), null);
    await save(folder, 7);
    await save(folder, 9);
    const newest = await save(folder, 8); // of a run that went back to an older checkpoint
    assert.equal((await Effect.runPromise(latestCheckpoint(folder).pipe(quietly)))?.meta.step, 8);
    await Deno.truncate(newest, 100);
    assert.equal((await Effect.runPromise(latestCheckpoint(folder).pipe(quietly)))?.meta.step, 9);
    for (const step of [7, 9]) await Deno.truncate(`${folder}/checkpoints/step_00000${step}.safetensors`, 0);
    assert.match(await reason(latestCheckpoint(folder)), /step_000008/);
  }),
);

Deno.test(
  "saveCheckpoint() says why it failed and leaves older checkpoints as they were",
  inTestFolder(async (folder) => {
    await save(folder, 1);
    await Deno.mkdir(`${folder}/checkpoints/step_000002.safetensors.partial`); // in its way
    const meta = { step: 2, teacherCounter: 2, instances: 12, config };
    assert.match(
      await reason(saveCheckpoint(folder, TEST, { meta, tensors: state(2) })),
      /^Cannot save checkpoint ".*000002/,
    );
    assert.equal((await Effect.runPromise(latestCheckpoint(folder).pipe(quietly)))?.meta.step, 1);
  }),
);

Deno.test("compareState() lists the first tensors that differ", async () => {
  const checkpoint = { file: "x", tensors: state(1) };
  const shapes = new Map([...state(1)].map(([name, { shape }]) => [name, shape]));
  await Effect.runPromise(compareState(shapes, checkpoint));
  shapes.set("encoder_q.conv1.weight", [64, 3, 7, 7]);
  shapes.set("encoder_q.fc.weight", [1]);
  shapes.delete("center");
  assert.equal(
    await reason(compareState(shapes, checkpoint)),
    'Cannot resume from checkpoint "x": it is of another architecture: encoder_q.conv1.weight is [2, 1, 1, 2], ' +
      "not [64, 3, 7, 7]; it has no encoder_q.fc.weight; it has a center, which this run has not",
  );
});

Deno.test(
  "loadCheckpoint() refuses a checkpoint of another task by its name, and takes one of any task where none is asked for",
  inTestFolder(async (folder) => {
    const file = await save(folder, 5);
    assert.match(
      await reason(loadCheckpoint(file, taskOf("segmentation"))),
      /^Cannot load checkpoint ".*": this is a checkpoint of test; expected one of segmentation$/,
    );
    assert.match(await reason(latestCheckpoint(folder, taskOf("segmentation"))), /a checkpoint of test;/);
    const { task, meta } = await Effect.runPromise(loadCheckpoint(file, TEST));
    assert.deepEqual([task, meta.config.width], ["test", 16]);
    assert.deepEqual((await Effect.runPromise(loadCheckpoint(file))).meta, meta);
  }),
);
