/**
 * The configuration of a pretraining run: every option with its default in the published code, the published runs as
 * presets, and how a preset, a file and the command line come together.
 */
import { Effect, Schema } from "effect";
import { datasets } from "../../data/datasets/image_list.ts";
import { type ArchitectureName, ARCHITECTURES } from "../model/resnet.ts";
import { optimizerNames } from "../optim/optimizers.ts";
import { flagName } from "../run/option_name.ts";
import {
  above,
  atLeast,
  between,
  choice,
  ConfigError,
  device,
  integer,
  lowerFirst,
  number,
  onOff,
  open,
  type Option,
  path,
  size,
  url,
} from "../run/options.ts";

const architectures = Object.keys(ARCHITECTURES) as ArchitectureName[];
const outputStride = Schema.Literals([8, 16, 32]);

// deno-fmt-ignore: a table
export const OPTIONS = {
  dataset: choice(datasets, "COCO", "layout of the data folder; Folder: any pictures, or a text file of paths"),
  dataDir: path("data", "folder of the data set"),
  imageSize: integer(224, atLeast(16), "side of the square views, in pixels"),
  minScale: number(0.08, between(0, 1, { exclusiveMinimum: true }), "least share of a picture that a view shows"),

  arch: choice(architectures, "resnet50", "encoder"),
  width: integer(64, atLeast(1), "channels behind the encoder's stem"),
  outputStride: open(integer(32, outputStride, "input pixels per pixel of the feature map; unset: the encoder's own")),
  dimHidden: integer(4096, atLeast(1), "hidden width of projector and predictor"),
  dimOut: integer(256, atLeast(1), "width of features, prototypes and slots"),
  numPrototypes: integer(256, atLeast(1), "prototypes, that is slots"),
  teacherMomentum: number(0.99, between(0, 1), "share of itself that the teacher keeps in the first step; rises to 1"),
  teacherTemp: number(0.07, above(0), "temperature of the teacher's targets and of the grouping"),
  studentTemp: number(0.1, above(0), "temperature of the student's predictions"),
  centerMomentum: number(0.9, between(0, 1), "share of itself that the centre keeps in a step"),
  groupLossWeight: number(0.5, between(0, 1), "weight of the grouping loss; the slot loss has the rest"),

  batchSize: integer(512, atLeast(1), "pictures a step, over all ranks"),
  baseLr: number(1, above(0), "learning rate for a batch of 256; scaled to the batch"),
  optimizer: choice(optimizerNames, "lars", "optimiser"),
  warmupEpoch: number(5, Schema.isGreaterThanOrEqualTo(0), "epochs in which the learning rate rises"),
  warmupMultiplier: number(100, Schema.isGreaterThanOrEqualTo(1), "peak learning rate over the first one"),
  weightDecay: number(1e-5, Schema.isGreaterThanOrEqualTo(0), "weight decay"),
  momentum: number(0.9, between(0, 1, { exclusiveMaximum: true }), "the optimiser's momentum"),
  precision: choice(["f32", "f16"], "f32", "how activations and their gradients are stored; f16 takes half the memory, and scales the loss"),
  epochs: integer(800, atLeast(1), "epochs of the whole run, which the schedules span"),
  startEpoch: integer(1, atLeast(1), "epoch to start with, from 1; a checkpoint of ours knows its own"),
  steps: open(integer(1, atLeast(1), "stop after this many steps in all; the schedules still span the epochs")),

  outputDir: path("output", "folder for the log, the metrics and the checkpoints"),
  autoResume: onOff(false, "go on from the newest checkpoint in the output folder, if there is one"),
  resume: open(path("", "checkpoint to go on from: of this project or of the published code")),
  init: open(path("", "weights to start a new run from: a checkpoint, or an encoder in any format that convert reads")),
  printFreq: integer(10, atLeast(1), "steps between two lines of the log"),
  saveFreq: integer(50, atLeast(1), "epochs between two checkpoints that stay"),
  saveSteps: open(integer(1, atLeast(1), "also save every so many steps")),
  saveMinutes: open(number(1, above(0), "also save every so many minutes")),
  keep: integer(3, atLeast(1), "how many of those other checkpoints stay, the newest ones"),
  tensorboard: onOff(false, "write the metrics for TensorBoard, too: to tensorboard/ in the output folder"),
  otlp: open(url("", "send the metrics and a span a stage to this OpenTelemetry collector, such as http://localhost:4318")),
  profile: onOff(false, "time every kernel of three early steps: a table in the log, and trace.json for Perfetto in the output folder"),
  seed: integer(0, Schema.Int.check(between(0, 2 ** 32 - 1)), "seed of the initial weights and of all random draws"),
  numWorkers: integer(Math.min(8, navigator.hardwareConcurrency), atLeast(1), "threads that read and decode pictures"),
  maxBadImages: number(0.01, between(0, 1), "share of unreadable pictures beyond which the run stops"),
  device: device("native", "WebGPU of Deno (native) or of the npm package webgpu (dawn); native:0,1 also names the adapters that the ranks of a machine take"),
  memoryLimit: open(size("", "device memory that a rank may take, such as 8GiB; what there is no room for is computed twice")),
  ranks: integer(1, atLeast(1), "processes that share every batch, one an adapter; mpirun starts them on this machine"),
  allowSharedDevice: onOff(false, "let several ranks use one adapter"),
  watchdogMinutes: number(10, above(0), "minutes that a rank waits for the others before it gives up"),
};

export type OptionName = keyof typeof OPTIONS;
export type Config = {
  readonly [Name in OptionName]: (typeof OPTIONS)[Name] extends Option<infer A> ? A : never;
};

export const optionNames = Object.keys(OPTIONS) as OptionName[];

type Value = string | number | boolean | null;
const eachOption = <A>(f: (option: Option<Value>) => A) =>
  Object.fromEntries(optionNames.map((name) => [name, f(OPTIONS[name] as Option<Value>)]));

/** The schema of each option as `config.json` and checkpoints have it; older ones may lack options that are newer. */
export const configFields = eachOption(({ schema, initial }) =>
  (initial === null ? Schema.NullOr(schema) : schema).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed(initial)),
  )
);

/** A configuration as it is stored in `config.json`. */
export const Config = Schema.Struct(configFields) as unknown as Schema.Codec<Config, Partial<Config>>;

const DEFAULTS = Schema.decodeSync(Config)({});

const imagenet = { dataset: "ImageNet", numPrototypes: 2048, saveFreq: 5, autoResume: true } as const;

/** The published runs, and the small one that `slotcon demo` makes. */
export const PRESETS = {
  "coco-800": { dataset: "COCO", autoResume: true },
  "cocoplus-800": { dataset: "COCOplus", autoResume: true },
  "imagenet-100": { ...imagenet, epochs: 100 },
  "imagenet-200": { ...imagenet, epochs: 200 },
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

export type PresetName = keyof typeof PRESETS;
export const presetNames = Object.keys(PRESETS) as PresetName[];

/** Options as somebody gave them, unchecked, and where: `--batch-size` or `"run.yaml", line 3, batch-size`. */
export type Settings = ReadonlyMap<OptionName, { readonly value: unknown; readonly where: string }>;

/**
 * The configuration that a preset and settings give together; later settings win over earlier ones, and all of them
 * over the preset. Fails with a `ConfigError` at the first option that is out of its range or contradicts another.
 */
export const configure = Effect.fn("configure")(
  function* (
    preset: PresetName | null,
    ...layers: readonly Settings[]
  ): Effect.fn.Return<Config, ConfigError> {
    const given: Settings = new Map(layers.flatMap((layer) => [...layer]));
    const values: Record<string, unknown> = { ...DEFAULTS, ...(preset === null ? {} : PRESETS[preset]) };
    for (const [name, { value, where }] of given) {
      const { schema, initial } = OPTIONS[name] as Option<Value>;
      if (value !== null || initial !== null) {
        yield* Schema.decodeUnknownEffect(schema)(value).pipe(
          Effect.mapError(({ message }) =>
            new ConfigError({ where, problem: `${lowerFirst(message)}, found ${JSON.stringify(value)}` })
          ),
        );
      }
      values[name] = value;
    }
    const config = values as unknown as Config;
    const contradiction = findContradiction(config);
    if (contradiction !== undefined) {
      const [name, problem] = contradiction;
      return yield* new ConfigError({ where: given.get(name)?.where ?? `--${flagName(name)}`, problem });
    }
    return config;
  },
);

const findContradiction = (config: Config): [OptionName, string] | undefined => {
  const { arch, imageSize, startEpoch, epochs, ranks, batchSize } = config;
  const own = (ARCHITECTURES[arch] as { outputStride?: number }).outputStride ?? 32;
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
  if (batchSize % ranks !== 0) {
    return ["ranks", `expected a divisor of the batch size ${batchSize}, found ${ranks}`];
  }
  return undefined;
};
