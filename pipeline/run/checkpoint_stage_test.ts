import assert from "node:assert/strict";
import { Deferred, Effect, Logger } from "effect";
import { inTestFolder } from "../../data/_test_kit.ts";
import { configure } from "../pretrain/config.ts";
import { PRETRAIN, type PretrainMeta } from "../pretrain/task.ts";
import { latestCheckpoint, savedStep } from "./checkpoint_file.ts";
import { type CheckpointPlan, type Checkpoints, checkpoints } from "./checkpoint_stage.ts";

const config = Effect.runSync(configure("demo"));
const meta = (step: number) => ({ step, teacherCounter: step, instances: 10, config });
const state = (step: number) => new Map([["center", { shape: [1, 2], data: Float32Array.of(step, -step) }]]);

/** Runs a body with the checkpoints of a run of ten steps an epoch, and gives what was logged. */
const logged = async (
  plan: Partial<CheckpointPlan> & Pick<CheckpointPlan, "outputDir">,
  body: (saving: Checkpoints<PretrainMeta>) => Effect.Effect<void, unknown>,
) => {
  const lines: string[] = [];
  const whole: CheckpointPlan = {
    ...{ saveFreq: 1, saveSteps: null, saveMinutes: null, keep: 2, stepsPerEpoch: 10, lastStep: 35, ...plan },
  };
  await checkpoints(PRETRAIN, whole, Effect.void).pipe(
    Effect.flatMap(body),
    Effect.scoped,
    Effect.provide(Logger.layer([Logger.make(({ message }) => void lines.push([message].flat().join(" ")))])),
    Effect.runPromise,
  );
  return lines;
};

const stepsIn = (folder: string) =>
  Array.from(Deno.readDirSync(`${folder}/checkpoints`), ({ name }) => savedStep(name))
    .filter((step) => step !== null).sort((a, b) => a - b);

Deno.test(
  "checkpoints() saves at epochs, steps and the end, and keeps the newest of what lies between epochs",
  inTestFolder(async (folder) => {
    await logged({ outputDir: folder, saveSteps: 4 }, (saving) =>
      Effect.gen(function* () {
        for (let done = 1; done <= 35; done++) {
          if (saving.due(done)) yield* saving.save(meta(done), Effect.succeed(state(done)));
        }
        yield* saving.settled;
      }));
    assert.deepEqual(stepsIn(folder), [10, 20, 30, 32, 35]);
    assert.equal((await Effect.runPromise(latestCheckpoint(folder)))?.meta.step, 35);
  }),
);

Deno.test(
  "checkpoints() keeps what was meant to stay, whatever a later run in the folder asks for",
  inTestFolder(async (folder) => {
    const saves = (plan: Partial<CheckpointPlan>, steps: readonly number[], value = 0) =>
      logged({ outputDir: folder, keep: 1, ...plan }, (saving) =>
        Effect.gen(function* () {
          for (const step of steps) yield* saving.save(meta(step), Effect.succeed(state(step + value)));
          yield* saving.settled;
        }));
    await saves({}, [10, 15, 20, 25]);
    assert.deepEqual(stepsIn(folder), [10, 20, 25]);
    await saves({ saveFreq: 50 }, [30, 31]); // 10 and 20 ended no fiftieth epoch
    assert.deepEqual(stepsIn(folder), [10, 20, 31]);
    await saves({ saveFreq: 2 }, [31, 40, 41]); // 31 is replaced, as one of those that rotate
    assert.deepEqual(stepsIn(folder), [10, 20, 40, 41]);
    // Steps that count otherwise come to an old name again: with the same bits nothing is kept, with others both are.
    await saves({ stepsPerEpoch: 5 }, [20]);
    const copies = () =>
      Array.from(Deno.readDirSync(`${folder}/checkpoints`), ({ name }) => name).filter((name) =>
        /\.\d\./.test(name)
      );
    assert.deepEqual(copies(), []);
    await saves({ stepsPerEpoch: 5 }, [20], 100);
    assert.deepEqual(copies(), ["step_000020.1.safetensors"]);
  }),
);

Deno.test(
  "checkpoints() never saves a state that is not finite, and ends the run",
  inTestFolder(async (folder) => {
    await logged({ outputDir: folder }, (saving) =>
      Effect.gen(function* () {
        yield* saving.save(meta(1), Effect.succeed(state(1)));
        yield* saving.save(meta(2), Effect.succeed(state(NaN)));
        const error = yield* Effect.flip(saving.save(meta(3), Effect.succeed(state(3))));
        assert.match(
          error.message,
          /^center has values that are not finite after step 2, which is not saved/,
        );
      }));
    assert.deepEqual(stepsIn(folder), [1]);
  }),
);

Deno.test(
  "checkpoints() saves after minutes",
  inTestFolder(async (folder) => {
    await logged({ outputDir: folder, saveMinutes: 1e-3 }, (saving) =>
      Effect.gen(function* () {
        assert.equal(saving.due(1), false);
        yield* Effect.sleep("70 millis");
        assert.equal(saving.due(2), true);
        assert.equal(saving.due(3), false);
      }));
  }),
);

Deno.test(
  "checkpoints() lets the run go on while it writes, and writes one after the other",
  inTestFolder(async (folder) => {
    await logged({ outputDir: folder }, (saving) =>
      Effect.gen(function* () {
        const copied = yield* Deferred.make<ReturnType<typeof state>>();
        yield* saving.save(meta(1), Deferred.await(copied)); // returns although the copy is not there yet
        assert.equal(yield* Effect.promise(() => Deno.stat(`${folder}/checkpoints`).catch(() => null)), null);
        yield* Deferred.succeed(copied, state(1));
        yield* saving.save(meta(2), Effect.succeed(state(2)));
        assert.deepEqual(stepsIn(folder).includes(1), true); // the first was finished before the second began
        yield* saving.settled;
      }));
    assert.deepEqual(stepsIn(folder), [1, 2]);
  }),
);

Deno.test(
  "checkpoints() goes on where one cannot be written, says so, and fails only where the last one could not",
  inTestFolder(async (folder) => {
    const lines = await logged({ outputDir: folder }, (saving) =>
      Effect.gen(function* () {
        yield* saving.save(meta(1), Effect.succeed(state(1)));
        yield* saving.settled;
        for (const step of [2, 4]) {
          yield* Effect.promise(() =>
            Deno.mkdir(`${folder}/checkpoints/step_00000${step}.safetensors/x`, { recursive: true })
          ); // in its way
        }
        yield* saving.save(meta(2), Effect.succeed(state(2)));
        yield* saving.save(meta(3), Effect.succeed(state(3)));
        yield* saving.settled;
        assert.equal((yield* latestCheckpoint(folder))?.meta.step, 3);
        yield* saving.save(meta(4), Effect.succeed(state(4)));
        assert.match((yield* Effect.flip(saving.settled)).message, /^Cannot save checkpoint ".*000004/);
        assert.equal((yield* latestCheckpoint(folder))?.meta.step, 3);
      }));
    assert.match(
      lines[1],
      /^Cannot save checkpoint ".*000002.*as they were; the run goes on and tries again$/,
    );
    const names = Array.from(Deno.readDirSync(`${folder}/checkpoints`), ({ name }) => name);
    assert.deepEqual(names.filter((name) => name.endsWith(".partial")), []);
  }),
);

Deno.test(
  "checkpoints() clears away what killed saves left behind",
  inTestFolder(async (folder) => {
    await Deno.mkdir(`${folder}/checkpoints`);
    await Deno.writeTextFile(`${folder}/checkpoints/step_000001.safetensors.partial`, "half");
    await logged({ outputDir: folder }, () => Effect.void);
    assert.deepEqual([...Deno.readDirSync(`${folder}/checkpoints`)], []);
  }),
);
