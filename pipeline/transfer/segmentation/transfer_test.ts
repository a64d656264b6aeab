import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Logger } from "effect";
import { testFolder } from "../../../data/_test_kit.ts";
import { openSegmentation } from "../../../data/datasets/segmentation/open_segmentation.ts";
import { makeScenes } from "../../../data/datasets/scenes.ts";
import { assertClose, gpuTest } from "../../../ops/_test_kit.ts";
import { layers } from "../../../ops/runtime/adapters.ts";
import { onRanks } from "../../../ops/runtime/_test_ranks.ts";
import { latestCheckpoint, loadCheckpoint } from "../../run/checkpoint_file.ts";
import { RECIPES, SEGMENTATION_OPTIONS, type SegmentationConfig } from "./config.ts";
import { ratePolicy, transferSegmentation } from "./transfer.ts";
import { SEGMENTATION } from "./task.ts";

/** A run of a tiny segmentor, with all that the recipe for ADE20K has, on drawn scenes. */
const tinyRun = Effect.fnUntraced(function* (change: Partial<SegmentationConfig> = {}) {
  const folder = yield* testFolder;
  const dataDir = join(folder, "scenes");
  yield* makeScenes({ dir: dataDir, seed: 0, train: 11, val: 5, size: 48 });
  const config: SegmentationConfig = {
    ...yield* SEGMENTATION_OPTIONS.configure("ade20k"),
    ...{ dataset: "coco", dataDir, outputDir: join(folder, "run"), arch: "resnet18", width: 4 },
    ...{ cropSize: 32, longSide: 96, shortSide: 40, headChannels: 8, auxiliaryChannels: 8 },
    ...{ batchSize: 4, iterations: 8, numWorkers: 1, validateEvery: 4, saveSteps: 4, shownImages: 2 },
    ...change,
  };
  const data = {
    train: yield* openSegmentation(config, "train"),
    val: config.validate ? yield* openSegmentation(config, "val") : null,
  };
  return { config, data };
});

const quietly = Effect.provide(Logger.layer([]));

const lines = ({ outputDir }: SegmentationConfig): Record<string, number>[] =>
  Deno.readTextFileSync(join(outputDir, "metrics.jsonl")).trim().split("\n").map((line) => {
    const { images_per_second: _, ...rest } = JSON.parse(line); // the only number that depends on the clock
    return rest;
  });

const tensors = Effect.fnUntraced(function* ({ outputDir }: SegmentationConfig) {
  const { tensors } = (yield* latestCheckpoint(outputDir, SEGMENTATION))!;
  return Object.fromEntries([...tensors].map(([name, { data }]) => [name, Array.from(data)]));
});

gpuTest("transferSegmentation() gives the same bits twice, and when it is stopped and resumed", function* () {
  const { config, data } = yield* tinyRun();
  const first = { ...config, outputDir: `${config.outputDir}-1` };
  yield* transferSegmentation(first, data).pipe(quietly);
  assert.equal(lines(first).length, 8);
  assert.ok(lines(first).every(({ loss, acc_head, acc_aux }) => Number.isFinite(loss + acc_head + acc_aux)));
  assert.deepEqual(
    lines(first).flatMap(({ step, val_miou }) => val_miou === undefined ? [] : [step]),
    [3, 7],
  );

  const second = { ...config, outputDir: `${config.outputDir}-2`, numWorkers: 2, steps: 5 };
  yield* transferSegmentation(second, data).pipe(quietly);
  yield* transferSegmentation({ ...second, steps: null, autoResume: true }, data).pipe(quietly);
  assert.deepEqual(lines(second).map(withoutValidation), lines(first).map(withoutValidation));
  assert.deepEqual(yield* tensors(second), yield* tensors(first));
});

/** Without what a run that was stopped reports more often, since its last step is always scored. */
const withoutValidation = (line: Record<string, number>) =>
  Object.fromEntries(Object.entries(line).filter(([name]) => !/^(val_|iou\/)/.test(name)));

gpuTest(
  "transferSegmentation() keeps the checkpoint of the best validation, says what it is, and draws what it predicts",
  function* () {
    const { config, data } = yield* tinyRun({ iterations: 6, validateEvery: 2 });
    yield* transferSegmentation(config, data).pipe(quietly);
    const scores = lines(config).flatMap(({ step, val_miou }) =>
      val_miou === undefined ? [] : [{ step: step + 1, val_miou }]
    );
    assert.equal(scores.length, 3);
    const top = scores.reduce((best, each) => each.val_miou > best.val_miou ? each : best);
    const best = yield* loadCheckpoint(
      join(config.outputDir, "checkpoints", "best.safetensors"),
      SEGMENTATION,
    );
    assert.deepEqual([best.meta.step, best.meta.miou], [top.step, top.val_miou]);
    assert.deepEqual(best.meta.classes, data.train.classes);
    const drawn = Array.from(Deno.readDirSync(join(config.outputDir, "predictions")), ({ name }) => name);
    assert.deepEqual(drawn.sort(), [
      ...["pictures.jpg", "step_000002.jpg", "step_000004.jpg", "step_000006.jpg", "truth.jpg"],
    ]);
  },
);

gpuTest(
  "transferSegmentation() saves what is done before it fails, where its validation cannot be",
  function* () {
    const { config, data } = yield* tinyRun({ validateEvery: 2, saveSteps: 8 });
    const val = { ...data.val!, samples: data.val!.samples.map((each) => ({ ...each, image: "gone.jpg" })) };
    const error = yield* Effect.flip(transferSegmentation(config, { ...data, val }).pipe(quietly));
    assert.equal(error._tag, "TooManyBadImagesError");
    const step = (yield* latestCheckpoint(config.outputDir, SEGMENTATION))?.meta.step ?? 0;
    assert.ok(step >= 2 && step <= 4, `${step} steps are saved`); // some were under way already
    assert.equal(lines(config).length, step);
    const resumed = { ...config, autoResume: true, steps: 6 };
    assert.equal(yield* transferSegmentation(resumed, data).pipe(quietly), 6);
  },
);

gpuTest("transferSegmentation() on two ranks computes what one computes", function* () {
  const { config, data } = yield* tinyRun({ iterations: 3, validateEvery: 3 });
  const one = { ...config, outputDir: `${config.outputDir}-one` };
  const two = { ...config, outputDir: `${config.outputDir}-two` };
  yield* transferSegmentation(one, data).pipe(quietly);
  yield* onRanks(2, () => transferSegmentation(two, data)).pipe(quietly);
  const [own, shared] = [yield* tensors(one), yield* tensors(two)];
  for (const [module, names] of Map.groupBy(Object.keys(own), (name) => name.replace(/\..*\./, " "))) {
    const all = (values: Record<string, number[]>) => names.flatMap((name) => values[name]);
    assertClose(all(shared), all(own), { rtol: 1e-4, what: module });
  }
  for (const [i, { loss, loss_aux, acc_head, val_miou }] of lines(two).entries()) {
    const same = lines(one)[i];
    assertClose([loss, loss_aux], [same.loss, same.loss_aux], { rtol: 1e-5 });
    assert.ok(Math.abs(acc_head - same.acc_head) < 0.1);
    if (val_miou !== undefined) assert.ok(Math.abs(val_miou - same.val_miou) < 0.5);
  }
});

Deno.test("ratePolicy() has the published milestones, whatever the iterations", () => {
  const voc = Effect.runSync(SEGMENTATION_OPTIONS.configure("voc"));
  assert.deepEqual(ratePolicy(voc), {
    ...{ schedule: "step", baseLr: 0.003, milestones: [21_000, 27_000], decay: 0.1 },
  });
  const cityscapes = { ...voc, ...RECIPES.cityscapes };
  assert.deepEqual(ratePolicy(cityscapes), {
    ...{ schedule: "step", baseLr: 0.01, milestones: [63_000, 81_000], decay: 0.1 },
  });
});

Deno.test("transferSegmentation() refuses a data set of another number of classes than asked for", async () => {
  const refused = Effect.gen(function* () {
    const { config, data } = yield* tinyRun({ classes: 150 });
    return yield* Effect.flip(transferSegmentation(config, data));
  });
  const { message } = await Effect.runPromise(Effect.provide(Effect.scoped(refused), layers.native));
  assert.match(message, /^--classes: 150 classes are expected, ".*scenes" has 7$/);
});
