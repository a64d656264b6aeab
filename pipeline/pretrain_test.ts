import assert from "node:assert/strict";
import { Effect, Fiber } from "effect";
import { join } from "node:path";
import sharp from "sharp";
import { gpuTest } from "../ops/_test_kit.ts";
import { constant } from "../ops/tensor.ts";
import { mul } from "../ops/arithmetic.ts";
import { randomStream } from "../data/random.ts";
import { writeWholeFile } from "../data/write_whole_file.ts";
import { type Config, configure } from "./config.ts";
import { latestCheckpoint } from "./checkpoint_file.ts";
import { convert } from "./interop/convert.ts";
import { openWeights } from "./interop/weights_file.ts";
import { pretrain } from "./pretrain.ts";
import { Progress } from "./report.ts";
import { optimize, slotConLoss } from "./step.ts";

/** Twelve small pictures of noise in a folder of their own, and a run that takes a moment. */
const prepared = Effect.fnUntraced(function* (change: Partial<Config> = {}) {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Deno.makeTempDirSync()),
    (folder) => Effect.sync(() => Deno.removeSync(folder, { recursive: true })),
  );
  const images: string[] = [];
  for (let i = 0; i < 12; i++) {
    const random = randomStream(7, i);
    const [width, height] = [48 + i, 60 - i];
    const data = Uint8Array.from({ length: width * height * 3 }, () => random.integer(256));
    const image = join(folder, `${i}.png`);
    yield* Effect.promise(() => sharp(data, { raw: { width, height, channels: 3 } }).png().toFile(image));
    images.push(image);
  }
  const config: Config = {
    ...(yield* configure(null)),
    ...{ arch: "resnet18", width: 8, outputStride: 8, dimHidden: 16, dimOut: 8, numPrototypes: 6 },
    ...{ imageSize: 32, batchSize: 4, epochs: 4, warmupEpoch: 1, baseLr: 4, numWorkers: 1, saveFreq: 100 },
    outputDir: join(folder, "run"),
    ...change,
  } as Config;
  return { config, images };
});

const lines = (config: Config): Record<string, number>[] =>
  Deno.readTextFileSync(join(config.outputDir, "metrics.jsonl")).trim().split("\n").map((line) => {
    const { images_per_second: _, ...rest } = JSON.parse(line); // the only number that depends on the clock
    return rest;
  });

const tensors = Effect.fnUntraced(function* (config: Config) {
  const checkpoint = yield* latestCheckpoint(config.outputDir);
  assert.ok(checkpoint !== null);
  return Object.fromEntries([...checkpoint.tensors].map(([name, { data }]) => [name, Array.from(data)]));
});

gpuTest("pretrain() gives the same bits twice, and when it is stopped and resumed", function* () {
  const { config, images } = yield* prepared();
  const first = { ...config, outputDir: `${config.outputDir}-1` };
  yield* pretrain(first, images);
  assert.equal(lines(first).length, 12);
  assert.ok(lines(first).every(({ loss }) => Number.isFinite(loss)));

  const second = { ...config, outputDir: `${config.outputDir}-2`, numWorkers: 2 };
  yield* pretrain(second, images);
  assert.deepEqual(lines(second), lines(first));

  const third = { ...config, outputDir: `${config.outputDir}-3`, steps: 5 };
  yield* pretrain(third, images);
  yield* pretrain({ ...third, steps: null, autoResume: true }, images);
  assert.deepEqual(lines(third), lines(first));
  assert.deepEqual(yield* tensors(third), yield* tensors(first));
});

gpuTest(
  "pretrain() goes on from a checkpoint of the published code as from its own, bit for bit",
  function* () {
    const { config, images } = yield* prepared();
    const whole = { ...config, outputDir: `${config.outputDir}-whole`, saveFreq: 2 };
    yield* pretrain(whole, images);
    const saved = join(whole.outputDir, "checkpoints", "step_000006.safetensors"); // after two epochs
    const published = `${config.outputDir}.pth`;
    yield* openWeights(saved).pipe(
      Effect.flatMap((weights) => convert(weights, { to: "pth", which: "teacher" })),
      Effect.flatMap(({ pieces }) => writeWholeFile(published, pieces)),
      Effect.scoped,
    );
    yield* pretrain({ ...config, resume: published }, images);
    assert.deepEqual(lines(config), lines(whole).slice(6));
    assert.deepEqual(yield* tensors(config), yield* tensors(whole));
  },
);

gpuTest("pretrain() that is interrupted finishes its step and saves it", function* () {
  const { config, images } = yield* prepared();
  const whole = { ...config, outputDir: `${config.outputDir}-whole` };
  yield* pretrain(whole, images);

  let running: Fiber.Fiber<unknown, unknown> | null = null;
  const interrupting = {
    begin: () => Effect.void,
    step: ({ step }: { step: number }) =>
      step === 3 ? Effect.sync(() => running!.interruptUnsafe()) : Effect.void,
  };
  running = yield* Effect.forkChild(
    pretrain(config, images).pipe(Effect.provideService(Progress, interrupting)),
  );
  yield* Fiber.await(running);
  const reached = (yield* latestCheckpoint(config.outputDir))!.meta.step;
  assert.ok(reached >= 4 && reached <= 7, `stopped after step ${reached}`);
  assert.equal(lines(config).length, reached);
  yield* pretrain({ ...config, autoResume: true }, images);
  assert.deepEqual(lines(config), lines(whole));
});

gpuTest(
  "pretrain() stops at a loss that is no number, names step and pictures, and saves nothing of it",
  function* () {
    const { config, images } = yield* prepared({ baseLr: 1e30, warmupEpoch: 0 });
    const error = yield* Effect.flip(pretrain(config, images));
    assert.ok(error._tag === "NonFiniteLoss", error.message);
    assert.ok(error.step <= 3 && error.images.length === 4);
    assert.equal(yield* latestCheckpoint(config.outputDir), null);
  },
);

gpuTest(
  "pretrain() refuses a checkpoint of another architecture, and a batch larger than the data",
  function* () {
    const { config, images } = yield* prepared({ steps: 1 });
    yield* pretrain(config, images);
    const other = yield* Effect.flip(pretrain({ ...config, width: 4, autoResume: true }, images));
    assert.match(other.message, /conv1\.weight/);
    const tooLarge = yield* Effect.flip(pretrain({ ...config, batchSize: 20 }, images));
    assert.match(tooLarge.message, /--batch-size 20/);
  },
);

gpuTest("pretrain() takes a step of the user's own", function* () {
  const { config, images } = yield* prepared({ steps: 2 });
  yield* pretrain(config, images, (views, rates, options) => {
    const objective = slotConLoss(views, rates, options);
    const halved = mul(objective.loss, constant(0.5));
    return optimize(
      { ...objective, loss: halved, metrics: { ...objective.metrics, halved } },
      rates,
      options,
    );
  });
  for (const { loss, halved } of lines(config)) assert.ok(Math.abs(halved - loss / 2) < 1e-5);
});
