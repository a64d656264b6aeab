import assert from "node:assert/strict";
import { Effect, Schema } from "effect";
import { parseConfig } from "../run/config_file.ts";
import type { Settings } from "../run/options.ts";
import { Config, configure, type OptionName, presetNames, PRETRAIN_OPTIONS } from "./config.ts";

const flags = (values: Partial<Record<OptionName, unknown>>): Settings<OptionName> =>
  new Map(Object.entries(values).map(([name, value]) => [name as OptionName, { value, where: `--${name}` }]));

const problem = <A, E extends Error>(effect: Effect.Effect<A, E>) =>
  Effect.runSync(Effect.flip(effect)).message;

Deno.test("configure() lets the command line win over a file and a file over a preset", () => {
  const file = Effect.runSync(parseConfig("epochs: 3\nnum_prototypes: 8\n", "a.yaml", PRETRAIN_OPTIONS));
  const config = Effect.runSync(configure("imagenet-100", file.settings, flags({ epochs: 4 })));
  assert.equal(config.epochs, 4);
  assert.equal(config.numPrototypes, 8);
  assert.equal(config.dataset, "ImageNet");
  assert.equal(config.teacherMomentum, 0.99);
});

Deno.test("configure() gives the published runs as presets", () => {
  for (
    const [name, dataset, epochs, prototypes] of [
      ["coco-800", "COCO", 800, 256],
      ["cocoplus-800", "COCOplus", 800, 256],
      ["imagenet-100", "ImageNet", 100, 2048],
      ["imagenet-200", "ImageNet", 200, 2048],
    ] as const
  ) {
    const config = Effect.runSync(configure(name));
    assert.deepEqual([config.dataset, config.epochs, config.numPrototypes], [dataset, epochs, prototypes]);
    assert.deepEqual([config.arch, config.batchSize, config.weightDecay], ["resnet50", 512, 1e-5]);
  }
});

Deno.test("Config decodes what it encoded, from JSON too", () => {
  for (const name of presetNames) {
    const config = Effect.runSync(configure(name));
    assert.deepEqual(Schema.decodeUnknownSync(Config)(JSON.parse(JSON.stringify(config))), config);
    const file = Effect.runSync(parseConfig(JSON.stringify(config), "config.json", PRETRAIN_OPTIONS));
    assert.deepEqual(Effect.runSync(configure(null, file.settings)), config);
  }
});

Deno.test("configure() refuses values out of range by naming where they were given", () => {
  const cases: [Partial<Record<OptionName, unknown>>, RegExp][] = [
    [{ epochs: 0 }, /^--epochs: expected a value greater than or equal to 1, found 0$/],
    [{ steps: 0 }, /^--steps:.*1, found 0/],
    [{ steps: 1.5 }, /^--steps:.*integer, found 1.5/],
    [{ teacherTemp: 0 }, /^--teacherTemp:.*greater than 0, found 0/],
    [{ baseLr: "fast" }, /^--baseLr: expected number, found "fast"/],
    [{ minScale: 0 }, /^--minScale:.*between 0 \(excluded\) and 1, found 0/],
    [{ outputStride: 4 }, /^--outputStride: expected 8 \| 16 \| 32, found 4/],
    [{ arch: "vgg" }, /^--arch: expected "resnet18" \|.*found "vgg"/],
    [{ otlp: "localhost:4318" }, /^--otlp: expected a URL such as http:.*, found "localhost:4318"/],
    [{ dataDir: null }, /^--dataDir: expected string, found null/],
    [{ arch: "resnet50_16s", outputStride: 32 }, /^--outputStride: resnet50_16s has 16 of its own/],
    [{ imageSize: 16 }, /^--imageSize: expected at least the output stride 32, found 16/],
    [{ epochs: 5, startEpoch: 6 }, /^--startEpoch: expected at most the 5 epochs/],
  ];
  for (const [values, expected] of cases) assert.match(problem(configure(null, flags(values))), expected);
});

Deno.test("parseConfig() names the line of what it refuses", () => {
  const cases: [string, RegExp][] = [
    [
      "epochs: 3\nbacth-size: 4\n",
      /^"a.yaml", line 2: there is no option "bacth-size"; did you mean "batch-size"\?$/,
    ],
    ["epochs: 3\nzzz: 4\n", /line 2: there is no option "zzz"; slotcon pretrain --help lists them/],
    ["epochs: [3\nseed: 1", /line 2: this is neither YAML nor JSON/],
    ['{\n"epochs": 3,\n"seed" 4}', /line 3: this is neither YAML nor JSON/],
    ["epochs: 3\nepochs: 4\n", /line 2: this is neither.*unique/],
    ["batch-size: 3\nbatch_size: 4\n", /line 2: batch-size is given twice/],
    ["- epochs\n", /line 1: expected lines such as/],
    ["\npreset: coco\n", /line 2: there is no preset "coco"/],
    ["\npreset: coco-80\n", /line 2: .*did you mean "coco-800"/],
  ];
  for (const [text, expected] of cases) {
    assert.match(problem(parseConfig(text, "a.yaml", PRETRAIN_OPTIONS)), expected);
  }
  const { settings } = Effect.runSync(parseConfig("seed: 1\nepochs: many\n", "a.yaml", PRETRAIN_OPTIONS));
  assert.match(
    problem(configure(null, settings)),
    /^"a.yaml", line 2, epochs: expected number, found "many"$/,
  );
});

Deno.test("parseConfig() takes every spelling of every option, and a preset", () => {
  const file = Effect.runSync(
    parseConfig(
      "preset: demo\nbatch-size: 1\nbase_lr: 2\nnumWorkers: 3\nresume:\n",
      "a.yaml",
      PRETRAIN_OPTIONS,
    ),
  );
  assert.equal(file.preset, "demo");
  assert.deepEqual([...file.settings].map(([name, { value }]) => [name, value]), [
    ["batchSize", 1],
    ["baseLr", 2],
    ["numWorkers", 3],
    ["resume", null],
  ]);
  assert.deepEqual(Effect.runSync(parseConfig("", "a.yaml", PRETRAIN_OPTIONS)).settings.size, 0);
});
