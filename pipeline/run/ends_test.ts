/** How runs end, and what they leave behind: nothing that was trained is lost, and nothing unsound is saved. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Fiber, Logger } from "effect";
import { gpuTest } from "../../ops/_test_kit.ts";
import { onRanks } from "../../ops/runtime/_test_ranks.ts";
import { tinyRunOnNoise } from "../_test_kit.ts";
import { convert, FORMATS } from "../convert.ts";
import type { Config } from "../pretrain/config.ts";
import { pretrain } from "../pretrain/pretrain.ts";
import { PRETRAIN } from "../pretrain/task.ts";
import { inspect } from "../weights/inspect.ts";
import { openWeights } from "../weights/weights_file.ts";
import { checkpointName, latestCheckpoint, loadCheckpoint, saveCheckpoint } from "./checkpoint_file.ts";
import { Progress, type StepReport } from "./progress.ts";
import { runStatus } from "./run_status.ts";

const textOf = ({ outputDir }: Config, name: string) => Deno.readTextFileSync(join(outputDir, name));

/** Does something after a step, from 0. */
const after = (step: number, act: () => void) =>
  Effect.provideService(Progress, {
    begin: () => Effect.void,
    step: (report: StepReport) => Effect.sync(() => report.step === step && act()),
  });

const moved = (from: string, to: string) => () => Deno.renameSync(from, to);

gpuTest("a run whose pictures are gone saves the steps that it has done, and can go on", function* () {
  const { config, images } = yield* tinyRunOnNoise({ epochs: 300 });
  const folder = join(images[0], "..");
  const away = moved(folder, `${folder}-away`);
  const error = yield* Effect.flip(pretrain(config, images).pipe(after(6, away)));
  assert.equal(error._tag, "TooManyBadImagesError");
  const { meta } = (yield* latestCheckpoint(config.outputDir))!;
  assert.ok(meta.step >= 7);
  assert.equal(textOf(config, "metrics.jsonl").trim().split("\n").length, meta.step);
  const status = runStatus(config.outputDir);
  assert.ok(status?.kind === "failed" && status.reason === error.message);
  assert.match(textOf(config, "log.txt"), /Error: \d+ of 12 pictures cannot be decoded/);
  assert.match(
    textOf(config, "log.txt"),
    /steps are done and saved\. To go on: slotcon pretrain --config .*--auto-resume$/m,
  );

  moved(`${folder}-away`, folder)();
  const steps = meta.step + 2;
  assert.equal(yield* pretrain({ ...config, autoResume: true, steps }, images), steps);
  assert.equal(runStatus(config.outputDir)?.kind, "finished");
});

gpuTest("a run that is shown by something that breaks saves the steps that it has done", function* () {
  const { config, images } = yield* tinyRunOnNoise();
  const broken = after(3, () => {
    throw new Error("the screen broke");
  });
  yield* pretrain(config, images).pipe(broken, Effect.exit);
  assert.ok((yield* latestCheckpoint(config.outputDir))!.meta.step >= 4);
  const status = runStatus(config.outputDir);
  assert.ok(status?.kind === "failed" && status.reason === "the screen broke");
});

gpuTest("a run that is stopped says at once what it does, and then how to go on", function* () {
  const { config, images } = yield* tinyRunOnNoise({ epochs: 300 });
  const said: string[] = [];
  let running: Fiber.Fiber<unknown, unknown> | null = null;
  running = yield* Effect.forkChild(
    pretrain(config, images).pipe(
      after(3, () => running!.interruptUnsafe()),
      Effect.provide(Logger.layer([Logger.make(({ message }) => void said.push(`${message}`))])),
    ),
  );
  yield* Fiber.await(running);
  assert.equal(runStatus(config.outputDir)?.kind, "stopped");
  const { step } = (yield* latestCheckpoint(config.outputDir))!.meta;
  const at = said.findIndex((line) => line.startsWith("Stopping"));
  assert.ok(at >= 0);
  assert.match(said.slice(at).join("\n"), new RegExp(`^${step} of 900 steps .* --auto-resume$`, "m"));
});

gpuTest("a run with nothing left to do writes nothing", function* () {
  const { config, images } = yield* tinyRunOnNoise({ steps: 5 });
  yield* pretrain(config, images);
  const before = ["config.json", "plan.json", "metrics.jsonl", "log.txt", "run.json"].map((name) =>
    textOf(config, name)
  );
  for (const steps of [5, 3]) {
    assert.equal(yield* pretrain({ ...config, autoResume: true, steps, printFreq: 3 }, images), 5);
  }
  assert.deepEqual(
    ["config.json", "plan.json", "metrics.jsonl", "log.txt", "run.json"].map((name) => textOf(config, name)),
    before,
  );
});

gpuTest(
  "a new run in the folder of another leaves that one whole; --resume of its newest goes on with it",
  function* () {
    const { config, images } = yield* tinyRunOnNoise({ steps: 4, saveSteps: 2 });
    yield* pretrain(config, images);
    const newest = join(config.outputDir, "checkpoints", checkpointName(4));
    yield* pretrain({ ...config, steps: 5, resume: newest }, images);
    assert.throws(() => Deno.statSync(join(config.outputDir, "before.1")), Deno.errors.NotFound);
    assert.equal(textOf(config, "metrics.jsonl").trim().split("\n").length, 5);

    const before = Deno.readFileSync(newest);
    yield* pretrain({ ...config, seed: 1, steps: 2 }, images);
    assert.deepEqual(
      Deno.readFileSync(join(config.outputDir, "before.1", "checkpoints", checkpointName(4))),
      before,
    );
    assert.equal((yield* latestCheckpoint(config.outputDir))!.meta.step, 2);
    assert.equal(runStatus(join(config.outputDir, "before.1"))?.kind, "finished");
  },
);

gpuTest("weights with a value that is not finite are refused by the tensor's name", function* () {
  const { config, images } = yield* tinyRunOnNoise({ steps: 2 });
  yield* pretrain(config, images);
  const file = join(config.outputDir, "checkpoints", checkpointName(2));
  const { meta, tensors } = yield* loadCheckpoint(file, PRETRAIN);
  const goodValues = Effect.map(loadCheckpoint(file), ({ tensors }) => tensors);
  const name = "encoder_q.layer1.0.bn1.running_var";
  tensors.get(name)!.data[3] = NaN;
  const bad = `${config.outputDir}-bad`;
  yield* saveCheckpoint(bad, PRETRAIN, { meta, tensors });
  const from = join(bad, "checkpoints", checkpointName(2));
  for (const options of [{ init: from }, { resume: from }, { outputDir: bad, autoResume: true, steps: 3 }]) {
    const error = yield* Effect.flip(pretrain({ ...config, outputDir: `${bad}-new`, ...options }, images));
    assert.match(
      error.message,
      /: 1 of the 8 values of encoder_q\.layer1\.0\.bn1\.running_var are not finite in 32 bits/,
    );
  }
  const weights = yield* openWeights(from);
  for (const to of FORMATS.filter((format) => format !== "mmseg-segmentor")) { // which needs a segmentor
    const { message } = yield* Effect.flip(convert(weights, { to, which: "student" }));
    assert.match(message, /^Cannot read ".*": 1 of the 8 values of .*running_var are not finite/, to);
  }
  const { nonFinite } = yield* inspect(weights);
  assert.deepEqual(nonFinite, [`1 of the 8 values of ${name}`]);
  yield* saveCheckpoint(bad, PRETRAIN, { meta: { ...meta, step: 1 }, tensors: yield* goodValues });
  yield* pretrain({ ...config, outputDir: bad, autoResume: true }, images); // from the one before
});

gpuTest(
  "where the pictures of one rank are gone, all save and stop, and say which rank it was",
  function* () {
    const { config, images } = yield* tinyRunOnNoise({ epochs: 300 });
    const folder = join(images[0], "..");
    const own = images.map((image) => join(`${folder}-own`, image.slice(folder.length)));
    Deno.mkdirSync(`${folder}-own`);
    images.forEach((image, i) => Deno.copyFileSync(image, own[i]));
    const ends = yield* onRanks(2, (rank) =>
      Effect.flip(pretrain(config, rank === 0 ? images : own)).pipe(
        after(4, () => rank === 0 && moved(`${folder}-own`, `${folder}-away`)()),
      ));
    assert.deepEqual(ends.map(({ _tag }) => _tag), ["OtherRankError", "TooManyBadImagesError"]);
    assert.match(ends[0].message, /^Rank 1 has ended the run: .*cannot be decoded/);
    assert.ok((yield* latestCheckpoint(config.outputDir))!.meta.step >= 5);
  },
);
