/** The configuration of a pretraining run: its options, with the published code's defaults, and the published runs. */
import { type Effect, Schema } from "effect";
import { type Dataset, datasetHelp, datasets } from "../../data/datasets/image_list.ts";
import { type ArchitectureName, ARCHITECTURES, type OutputStride } from "../model/resnet.ts";
import { type OptimizerName, optimizerNames } from "../optim/optimizers.ts";
import {
  above,
  atLeast,
  between,
  choice,
  type ConfigError,
  type ConfigOf,
  DATA_DIR,
  incidental,
  integer,
  number,
  open,
  type Option,
  path,
  PRECISION,
  RUN_OPTIONS,
  type Settings,
  type TaskOptions,
  taskOptions,
} from "../run/options.ts";

const architectures = Object.keys(ARCHITECTURES) as ArchitectureName[];
const outputStride = Schema.Literals([8, 16, 32]);

/**
 * The options of a pretraining run, in the order of `--help` and `config.json`. The casts are for JSR, as in run/options.ts.
 */
// deno-fmt-ignore: a table
export const METHOD_OPTIONS = {
  dataset: choice(datasets, "COCO", datasetHelp) as Option<Dataset>,
  dataDir: DATA_DIR as Option<string>,
  imageSize: integer(224, atLeast(16), "side of the square views, in pixels") as Option<number>,
  minScale: number(0.08, between(0, 1, { exclusiveMinimum: true }), "least share of a picture that a view shows") as Option<number>,

  arch: choice(architectures, "resnet50", "encoder") as Option<ArchitectureName>,
  width: integer(64, atLeast(1), "channels behind the encoder's stem") as Option<number>,
  outputStride: open(integer(32, outputStride, "input pixels per pixel of the feature map; unset: the encoder's own")) as Option<OutputStride | null>,
  dimHidden: integer(4096, atLeast(1), "hidden width of projector and predictor") as Option<number>,
  dimOut: integer(256, atLeast(1), "width of features, prototypes and slots") as Option<number>,
  numPrototypes: integer(256, atLeast(1), "prototypes, that is slots") as Option<number>,
  teacherMomentum: number(0.99, between(0, 1), "share of itself that the teacher keeps in the first step; rises to 1") as Option<number>,
  teacherTemp: number(0.07, above(0), "temperature of the teacher's targets and of the grouping") as Option<number>,
  studentTemp: number(0.1, above(0), "temperature of the student's predictions") as Option<number>,
  centerMomentum: number(0.9, between(0, 1), "share of itself that the centre keeps in a step") as Option<number>,
  groupLossWeight: number(0.5, between(0, 1), "weight of the grouping loss; the slot loss has the rest") as Option<number>,

  batchSize: integer(512, atLeast(1), "pictures a step, over all ranks") as Option<number>,
  baseLr: number(1, above(0), "learning rate for a batch of 256; scaled to the batch") as Option<number>,
  optimizer: choice(optimizerNames, "lars", "optimiser") as Option<OptimizerName>,
  warmupEpoch: number(5, Schema.isGreaterThanOrEqualTo(0), "epochs in which the learning rate rises") as Option<number>,
  warmupMultiplier: number(100, Schema.isGreaterThanOrEqualTo(1), "peak learning rate over the first one") as Option<number>,
  weightDecay: number(1e-5, Schema.isGreaterThanOrEqualTo(0), "weight decay") as Option<number>,
  momentum: number(0.9, between(0, 1, { exclusiveMaximum: true }), "the optimiser's momentum") as Option<number>,
  precision: PRECISION as Option<"f32" | "f16">,
  epochs: integer(800, atLeast(1), "epochs of the whole run, which the schedules span") as Option<number>,
  startEpoch: incidental(integer(1, atLeast(1), "epoch to start with, from 1; a checkpoint of ours knows its own")) as Option<number>,
  steps: incidental(open(integer(1, atLeast(1), "stop after this many steps in all; the schedules still span the epochs"))) as Option<number | null>,
};

/** The options of a pretraining run, in the order of `--help` and `config.json`. */
export const OPTIONS: typeof METHOD_OPTIONS & typeof RUN_OPTIONS = {
  ...METHOD_OPTIONS,
  ...RUN_OPTIONS,
  resume: incidental(open(path("", "checkpoint to go on from: of this project or of the published code"))),
};

/** The name of an option, as in `config.json`. */
export type OptionName = keyof typeof OPTIONS;

/** The options of a pretraining run, as `slotcon pretrain --help` explains them. */
export type Config = ConfigOf<typeof OPTIONS>;

const imagenet = { dataset: "ImageNet", numPrototypes: 2048, saveFreq: 5, autoResume: true } as const;

/** The published runs, and the small one that `slotcon demo` makes. */
export const PRESETS = {
  "coco-800": { dataset: "COCO", autoResume: true },
  "cocoplus-800": { dataset: "COCOplus", autoResume: true },
  "imagenet-100": { ...imagenet, epochs: 100 } as Partial<Config>,
  "imagenet-200": { ...imagenet, epochs: 200 } as Partial<Config>,
  "demo": {
    dataset: "COCO",
    dataDir: "runs/demo/data",
    outputDir: "runs/demo",
    imageSize: 96, // at 64 the blur, meant for views of 224, would leave little of a texture
    minScale: 0.3,
    arch: "resnet18",
    width: 16,
    outputStride: 8,
    dimHidden: 256,
    dimOut: 64,
    numPrototypes: 32,
    batchSize: 8,
    optimizer: "sgd",
    baseLr: 2,
    epochs: 3,
    warmupEpoch: 0.3,
    saveFreq: 1,
  },
} as const satisfies Record<string, Partial<Config>>;

/** The name of a preset. */
export type PresetName = keyof typeof PRESETS;

/** The names of the presets. */
export const presetNames: readonly PresetName[] = Object.keys(PRESETS) as PresetName[];

/** The first option that cannot go with the others, and why. */
const contradiction = (config: Config): [OptionName, string] | undefined => {
  const { arch, imageSize, startEpoch, epochs } = config;
  const own = ARCHITECTURES[arch].outputStride ?? 32;
  const stride = config.outputStride ?? own;
  if (stride > own) {
    return ["outputStride", `${arch} has ${own} of its own, expected that or less, found ${stride}`];
  }
  if (imageSize < stride) {
    return ["imageSize", `expected at least the output stride ${stride}, found ${imageSize}`];
  }
  if (startEpoch > epochs) {
    return ["startEpoch", `expected at most the ${epochs} epochs of the run, found ${startEpoch}`];
  }
  return undefined;
};

/** Pretraining as its options describe it. */
export const PRETRAIN_OPTIONS: TaskOptions<Config, PresetName> = taskOptions({
  task: "pretrain",
  table: OPTIONS,
  presets: PRESETS,
  contradiction,
});

/** The names of the options, in the order of the table. */
export const optionNames: readonly OptionName[] = PRETRAIN_OPTIONS.names;

/** A configuration as `config.json` and checkpoints hold it; older ones may lack options that are newer. */
export const Config: Schema.Codec<Config, Partial<Config>> = PRETRAIN_OPTIONS.schema;

/**
 * The configuration that a preset and settings give together; later settings win over earlier ones, and all of them
 * over the preset. Fails with a `ConfigError` at the first option that is out of its range or contradicts another.
 */
export const configure: (
  preset: PresetName | null,
  ...layers: readonly Settings<OptionName>[]
) => Effect.Effect<Config, ConfigError> = PRETRAIN_OPTIONS.configure;
