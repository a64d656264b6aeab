import assert from "node:assert/strict";
import { Effect, Logger } from "effect";
import { inTestFolder } from "../../data/_test_kit.ts";
import { configure } from "../pretrain/config.ts";
import { NO_TIME } from "./phase_timer.ts";
import { duration, type RunPlan, stepLine, type StepReport } from "./progress.ts";
import { openRunFolder } from "./run_folder.ts";
import { type Ending, runStatus } from "./run_status.ts";

const plan: RunPlan = {
  firstStep: 0,
  lastStep: 40,
  stepsPerEpoch: 4,
  batchSize: 8,
  deviceBytes: 1,
  memory: { state: 1, batch: 0, constants: 0, activations: 0, scratch: 0 },
  device: "a GPU",
  kernels: {},
  printFreq: 3,
};
const report = (step: number): StepReport => ({
  step,
  epoch: 1 + Math.floor(step / 4),
  metrics: {
    loss: 4 / (step + 1),
    loss_group: 1,
    loss_slot: 3,
    lr: 0.02,
    teacher_momentum: 0.99,
    bad_images: 0,
  },
  imagesPerSecond: 2,
  seconds: NO_TIME,
});

const run = (outputDir: string, firstStep: number, steps: number[], note = "a note") => {
  const config = { ...Effect.runSync(configure("demo")), outputDir };
  return Effect.runPromise(Effect.scoped(Effect.gen(function* () {
    const folder = yield* openRunFolder(config, { ...plan, firstStep });
    for (const step of steps) yield* folder.record(report(step));
    yield* folder.flush;
    yield* Effect.logWarning(note).pipe(Effect.provide(Logger.layer([folder.logger])));
  })));
};

const steps = (file: string) =>
  Deno.readTextFileSync(file).trimEnd().split("\n").map((line) => JSON.parse(line).step);

Deno.test(
  "openRunFolder() writes an object a step, a line every print-freq steps, and the configuration",
  inTestFolder(async (scratch) => {
    const folder = `${scratch}/runs/a b`;
    await run(folder, 0, [0, 1, 2, 3]);
    const lines = (await Deno.readTextFile(`${folder}/metrics.jsonl`)).split("\n");
    assert.equal(
      lines[1],
      '{"step":1,"epoch":1,"loss":2,"loss_group":1,"loss_slot":3,"lr":0.02,"teacher_momentum":0.99,' +
        '"bad_images":0,"images_per_second":2}',
    );
    const log = (await Deno.readTextFile(`${folder}/log.txt`)).split("\n");
    assert.equal(
      log[0].slice("2026-01-01 00:00:00 ".length),
      "epoch 1  step 3/40  loss 1.3333 (group 1.0000, slot 3.0000)  lr 0.02000  2.00 images/s  2:28 min left",
    );
    assert.match(log[1], /Warn: a note$/);
    assert.equal(JSON.parse(await Deno.readTextFile(`${folder}/config.json`)).arch, "resnet18");
  }),
);

Deno.test(
  "openRunFolder() lets the metrics of a resumed run go on as if it had never stopped",
  inTestFolder(async (folder) => {
    const [stopped, straight] = [`${folder}/stopped`, `${folder}/straight`];
    await run(straight, 0, [0, 1, 2, 3, 4, 5]);
    await run(stopped, 0, [0, 1, 2, 3, 4]);
    await Deno.writeTextFile(`${stopped}/metrics.jsonl`, '{"step":5,"lo', { append: true }); // killed while it wrote
    await run(stopped, 3, [3, 4, 5]);
    assert.equal(
      await Deno.readTextFile(`${stopped}/metrics.jsonl`),
      await Deno.readTextFile(`${straight}/metrics.jsonl`),
    );
  }),
);

Deno.test(
  "openRunFolder() keeps the metrics of an earlier run when a new one starts",
  inTestFolder(async (folder) => {
    for (const last of [1, 2, 3]) await run(folder, 0, [last]);
    assert.deepEqual(
      ["before.1/metrics.jsonl", "before.2/metrics.jsonl", "metrics.jsonl"].map((f) =>
        steps(`${folder}/${f}`)
      ),
      [[1], [
        2,
      ], [3]],
    );
  }),
);

Deno.test(
  "openRunFolder() puts an earlier run aside whole, with its checkpoints, and leaves what is no run's",
  inTestFolder(async (folder) => {
    await run(folder, 0, [0, 1]);
    await Deno.mkdir(`${folder}/checkpoints`);
    await Deno.writeTextFile(`${folder}/checkpoints/step_000002.safetensors`, "weeks of work");
    for (const name of ["slot_maps", "data"]) await Deno.mkdir(`${folder}/${name}`);
    await run(folder, 0, [0]);
    const names = (path: string) => Array.from(Deno.readDirSync(path), ({ name }) => name).sort();
    const written = ["config.json", "log.txt", "metrics.jsonl", "plan.json", "run.json", "times.jsonl"];
    assert.deepEqual(names(folder), [...written, "before.1", "data"].sort());
    assert.deepEqual(names(`${folder}/before.1`), [...written, "checkpoints", "slot_maps"].sort());
    assert.equal(
      await Deno.readTextFile(`${folder}/before.1/checkpoints/step_000002.safetensors`),
      "weeks of work",
    );
    assert.match(
      await Deno.readTextFile(`${folder}/log.txt`),
      /had another run, which is in ".*before\.1" now/,
    );
  }),
);

Deno.test(
  "openRunFolder() refuses a folder into which a run is writing, and says how a run is or ended",
  inTestFolder(async (folder) => {
    const config = { ...Effect.runSync(configure("demo")), outputDir: `${folder}/run` };
    assert.equal(runStatus(config.outputDir), null);
    const opened = (ending: Ending | null) =>
      Effect.runPromise(Effect.scoped(Effect.gen(function* () {
        const own = yield* openRunFolder(config, plan);
        assert.equal(runStatus(config.outputDir)?.kind, "running");
        const error = yield* Effect.flip(Effect.scoped(openRunFolder(config, plan)));
        assert.match(error.message, /^Another run is writing into ".*run" \(process \d+ on .*--output-dir$/);
        if (ending !== null) yield* own.ended(ending);
      })));
    await opened(null);
    assert.equal(runStatus(config.outputDir)?.kind, "killed");
    for (const ending of [{ kind: "finished" }, { kind: "stopped" }] as const) {
      await opened(ending);
      assert.equal(runStatus(config.outputDir)?.kind, ending.kind);
    }
    await opened({ kind: "failed", reason: "It broke" });
    const status = runStatus(config.outputDir);
    assert.ok(status?.kind === "failed" && status.reason === "It broke");
    assert.match(await Deno.readTextFile(`${folder}/run/log.txt`), /Error: It broke$/m);
  }),
);

Deno.test(
  "openRunFolder() keeps checkpoints in place for a run that goes on with other steps, and its metrics aside",
  inTestFolder(async (folder) => {
    await run(folder, 0, [0, 1]);
    await Deno.mkdir(`${folder}/checkpoints`);
    await Deno.writeTextFile(`${folder}/checkpoints/step_000002.safetensors`, "");
    const config = { ...Effect.runSync(configure("demo")), outputDir: folder };
    await Effect.runPromise(
      Effect.scoped(openRunFolder(config, { ...plan, firstStep: 1 }, { goesOnWith: "state" })),
    );
    assert.deepEqual(steps(`${folder}/before.1/metrics.jsonl`), [0, 1]);
    assert.equal(await Deno.readTextFile(`${folder}/metrics.jsonl`), "");
    assert.ok((await Deno.stat(`${folder}/checkpoints/step_000002.safetensors`)).isFile);
  }),
);

Deno.test(
  "openRunFolder() names the file that it cannot write",
  inTestFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    await assert.rejects(
      run(`${folder}/file/run`, 0, []),
      /^RunFolderError: Cannot write ".*file\/run": .*--output-dir/,
    );
    await Deno.mkdir(`${folder}/log.txt`);
    await assert.rejects(run(folder, 0, []), /Cannot write ".*log.txt"/);
  }),
);

Deno.test(
  "openRunFolder() warns once where more than 2 % of a minute goes into waiting for pictures",
  inTestFolder(async (outputDir) => {
    const demo = Effect.runSync(configure("demo"));
    /** Steps of a second each: warnings of a run that starts slowly and then waits so long for pictures. */
    const warnings = async (decode: number, steps: number) => {
      const said: string[] = [];
      const logger = Logger.make(({ message }) => void said.push(String(message)));
      await Effect.runPromise(
        Effect.scoped(Effect.gen(function* () {
          const config = { ...demo, outputDir: `${outputDir}/${decode} ${steps}` };
          const folder = yield* openRunFolder(config, plan);
          for (let step = 0; step < steps; step++) {
            const waited = step < 20 ? 0.9 : decode;
            const host = { ...NO_TIME.host, decode: waited, device: 1 - waited };
            yield* folder.record({ ...report(step), seconds: { host, device: null } });
          }
        })).pipe(Effect.provide(Logger.layer([logger]))),
      );
      return said;
    };
    assert.deepEqual(await warnings(0.019, 300), []);
    assert.deepEqual(await warnings(0.021, 80), []);
    const told = await warnings(0.021, 300);
    assert.equal(told.length, 1);
    assert.match(told[0], /More than 2 % of the time goes into waiting for pictures.*--num-workers/);
  }),
);

Deno.test("stepLine() tells the loss scale in half precision, and how many steps were skipped", () => {
  const line = (more: Record<string, number>) =>
    stepLine({ ...report(3), metrics: { ...report(3).metrics, ...more } }, plan);
  assert.doesNotMatch(line({}), /scale/);
  assert.ok(
    line({ loss_scale: 65536, skipped_steps: 0 }).includes("  lr 0.02000  scale 65536  2.00 images/s"),
  );
  assert.ok(line({ loss_scale: 0.5, skipped_steps: 17 }).includes("  scale 0.5 (17 skipped)  "));
});

Deno.test("duration() tells seconds in the largest fitting unit", () => {
  assert.deepEqual([0, 59.4, 60, 185, 8100, 273600, NaN].map(duration), [
    ...["0 s", "59 s", "1:00 min", "3:05 min", "2:15 h", "3 d 4 h", "?"],
  ]);
});
