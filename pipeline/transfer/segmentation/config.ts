/** The configuration of fine-tuning on semantic segmentation: its options, and the published recipes. */
import { type Effect, Schema } from "effect";
import { LABEL_KINDS, type LabelKind } from "../../../data/datasets/coco_labels.ts";
import type { SegmentationDataset } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { type ArchitectureName, ARCHITECTURES } from "../../model/resnet.ts";
import { type OptimizerName, optimizerNames } from "../../optim/optimizers.ts";
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
  onOff,
  open,
  type Option,
  path,
  PRECISION,
  RUN_OPTIONS,
  type Settings,
  shares,
  type TaskOptions,
  taskOptions,
} from "../../run/options.ts";

/** All kinds of data sets. */
export const segmentationDatasets: readonly SegmentationDataset[] = [
  "voc",
  "cityscapes",
  "ade20k",
  "masks",
  "coco",
];

const architectures = Object.keys(ARCHITECTURES) as ArchitectureName[];
const atLeastZero = Schema.isGreaterThanOrEqualTo(0);

/** The options of fine-tuning, in the order of `--help` and `config.json`; defaults are those of the recipe voc. */
// deno-fmt-ignore: a table
export const SEGMENTATION_TABLE = {
  weights: path("none", "pretrained weights: any file that convert reads, or a whole segmentor; none: from scratch") as Option<string>,
  dataset: choice(segmentationDatasets, "masks", "how the data set is laid out; masks: pictures in images/ and label maps in labels/, coco: annotations of COCO's formats") as Option<SegmentationDataset>,
  dataDir: DATA_DIR as Option<string>,
  trainList: open(path("", "masks: file with the names of the training pictures, one a line; unset: the folders train/")) as Option<string | null>,
  valList: open(path("", "masks: file with the names of the validation pictures; unset: the folders val/")) as Option<string | null>,
  classFile: open(path("", "masks: YAML file of the classes' names and colours; unset: classes.yaml in the data set's folder")) as Option<string | null>,
  labelKind: open(choice(LABEL_KINDS, "panoptic", "coco: which annotations; unset: the first that are there")) as Option<LabelKind | null>,
  reduceZeroLabel: onOff(false, "labels on disk begin at 1, and 0 is ignored") as Option<boolean>,
  classes: open(integer(1, Schema.Int.check(between(1, 255)), "how many classes the data set has to have; unset: as many as it has")) as Option<number | null>,
  trainImages: open(integer(1, atLeast(1), "train on so many pictures alone, which the seed chooses")) as Option<number | null>,

  longSide: integer(2049, atLeast(1), "pictures are resized so that their longer side is at most this, in pixels,") as Option<number>,
  shortSide: integer(513, atLeast(1), "and their shorter side at most this") as Option<number>,
  minRatio: number(0.5, above(0), "in training both are multiplied by a random ratio, at least this,") as Option<number>,
  maxRatio: number(2, above(0), "and below this") as Option<number>,
  cropSize: integer(513, atLeast(16), "side of the random square that is trained on, in pixels") as Option<number>,
  maxClassShare: number(1, between(0, 1, { exclusiveMinimum: true }), "largest share of a crop that one class should have; 1: any") as Option<number>,
  flip: number(0.5, between(0, 1), "probability of flipping left to right") as Option<number>,
  colorDistortion: onOff(false, "distort brightness, contrast, saturation and hue") as Option<boolean>,
  pixelStatistics: choice(["imagenet", "unscaled"], "imagenet", "how pixels are normalised: by ImageNet's mean and deviation, or by those of pixels from 0 to 1 although they go to 255, as published for voc and cityscapes") as Option<"imagenet" | "unscaled">,

  arch: choice(architectures, "resnet50", "encoder") as Option<ArchitectureName>,
  width: integer(64, atLeast(1), "channels behind the encoder's stem") as Option<number>,
  outputStride: integer(16, Schema.Literals([8, 16, 32]), "input pixels per pixel of the logits: 16 and 8 are the published networks d16 and d8") as Option<8 | 16 | 32>,
  headChannels: integer(256, atLeast(1), "channels of the head's 3×3 convolutions") as Option<number>,
  headDilation: integer(6, atLeast(1), "dilation of the head's first two convolutions") as Option<number>,
  concatInput: onOff(false, "a third convolution sees the encoder's output beside that of the first two") as Option<boolean>,
  auxiliaryWeight: number(0, atLeastZero, "weight of the loss of a second head on the third stage; 0: there is none") as Option<number>,
  auxiliaryChannels: integer(256, atLeast(1), "channels of that head") as Option<number>,
  dropout: number(0, between(0, 1, { exclusiveMaximum: true }), "probability that a channel before a classifier is dropped in training") as Option<number>,
  alignCorners: onOff(true, "enlarge logits with their corner pixels aligned") as Option<boolean>,

  batchSize: integer(16, atLeast(1), "pictures a step, over all ranks") as Option<number>,
  iterations: integer(30_000, atLeast(1), "steps of the whole run, which the schedule spans") as Option<number>,
  optimizer: choice(optimizerNames, "sgd", "optimiser") as Option<OptimizerName>,
  baseLr: number(0.003, above(0), "learning rate, whatever the batch") as Option<number>,
  momentum: number(0.9, between(0, 1, { exclusiveMaximum: true }), "the optimiser's momentum") as Option<number>,
  weightDecay: number(1e-4, atLeastZero, "weight decay of all parameters") as Option<number>,
  schedule: choice(["step", "poly"], "step", "how the learning rate falls") as Option<"step" | "poly">,
  milestones: shares("0.7,0.9", "step: shares of the iterations after which it is multiplied by --lr-decay") as Option<string>,
  lrDecay: number(0.1, between(0, 1, { exclusiveMinimum: true }), "step: the factor") as Option<number>,
  minLr: number(1e-4, atLeastZero, "poly: the learning rate that it falls to") as Option<number>,
  power: number(0.9, above(0), "poly: the exponent") as Option<number>,
  precision: PRECISION as Option<"f32" | "f16">,
  steps: incidental(open(integer(1, atLeast(1), "stop after this many steps in all; the schedule still spans the iterations"))) as Option<number | null>,

  validate: incidental(onOff(true, "score the validation pictures while training, and keep the best checkpoint")) as Option<boolean>,
  validateEvery: incidental(open(integer(1, atLeast(1), "steps between two validations; unset: a tenth of the iterations"))) as Option<number | null>,
  shownImages: incidental(integer(4, atLeast(0), "validation pictures that are shown with what is predicted for them")) as Option<number>,
  testMode: incidental(choice(["whole", "windows"], "whole", "how pictures are predicted: as a whole, or in windows of the crop's size")) as Option<"whole" | "windows">,
  windowStride: incidental(integer(513, atLeast(1), "windows: pixels from one to the next")) as Option<number>,
};

const { init: _, ...runOptions } = RUN_OPTIONS; // --weights is the task's own

/** The options of fine-tuning, in the order of `--help` and `config.json`. */
export const SEGMENTATION_FIELDS: typeof SEGMENTATION_TABLE & Omit<typeof RUN_OPTIONS, "init"> = {
  ...SEGMENTATION_TABLE,
  ...runOptions,
};

/** The options of fine-tuning on semantic segmentation, as `slotcon transfer segmentation --help` explains them. */
export type SegmentationConfig = ConfigOf<typeof SEGMENTATION_FIELDS>;

/** The published recipes (docs/method.md, section 13). */
export const RECIPES = {
  voc: { dataset: "voc", pixelStatistics: "unscaled", validateEvery: 3000, saveSteps: 3000 },
  cityscapes: {
    dataset: "cityscapes",
    longSide: 2049,
    shortSide: 1025,
    cropSize: 769,
    pixelStatistics: "unscaled",
    iterations: 90_000,
    baseLr: 0.01,
    testMode: "windows",
    windowStride: 513,
    validateEvery: 9000,
    saveSteps: 9000,
  },
  ade20k: {
    dataset: "ade20k",
    longSide: 2048,
    shortSide: 512,
    cropSize: 512,
    maxClassShare: 0.75,
    colorDistortion: true,
    outputStride: 8,
    headChannels: 512,
    headDilation: 1,
    concatInput: true,
    auxiliaryWeight: 0.4,
    dropout: 0.1,
    alignCorners: false,
    iterations: 80_000,
    baseLr: 0.01,
    weightDecay: 5e-4,
    schedule: "poly",
    validateEvery: 8000,
    saveSteps: 8000,
  },
} as const satisfies Record<RecipeName, Partial<SegmentationConfig>>;

/** The name of a published recipe. */
export type RecipeName = "voc" | "cityscapes" | "ade20k";

/** The first option that cannot go with the others, and why. */
const contradiction = (config: SegmentationConfig): [keyof SegmentationConfig, string] | undefined => {
  const { arch, outputStride, cropSize, minRatio, maxRatio } = config;
  const own = ARCHITECTURES[arch].outputStride ?? 32;
  if (outputStride > own) {
    return ["outputStride", `${arch} has ${own} of its own, expected that or less, found ${outputStride}`];
  }
  if (cropSize < outputStride) {
    return ["cropSize", `expected at least the output stride ${outputStride}, found ${cropSize}`];
  }
  if (config.shortSide > config.longSide) {
    return ["shortSide", `expected at most --long-side ${config.longSide}, found ${config.shortSide}`];
  }
  if (minRatio > maxRatio) return ["minRatio", `expected at most --max-ratio ${maxRatio}, found ${minRatio}`];
  if (config.testMode === "windows" && config.windowStride > cropSize) {
    return ["windowStride", `expected at most the windows' side ${cropSize}, found ${config.windowStride}`];
  }
  if (config.schedule === "poly" && config.minLr > config.baseLr) {
    return ["minLr", `expected at most --base-lr ${config.baseLr}, found ${config.minLr}`];
  }
  for (const option of ["trainList", "valList", "classFile"] as const) {
    if (config[option] !== null && config.dataset !== "masks") {
      return [option, `only --dataset masks has it, found ${config.dataset}`];
    }
  }
  if (config.labelKind !== null && config.dataset !== "coco") {
    return ["labelKind", `only --dataset coco has it, found ${config.dataset}`];
  }
  return undefined;
};

/** Fine-tuning on semantic segmentation as its options describe it. */
export const SEGMENTATION_OPTIONS: TaskOptions<SegmentationConfig, RecipeName> = taskOptions({
  task: "transfer segmentation",
  table: SEGMENTATION_FIELDS,
  presets: RECIPES,
  presetName: "recipe",
  contradiction,
});

/**
 * The configuration that a recipe and settings give together; later settings win over earlier ones, and all of them over
 * the recipe. Fails with a `ConfigError` at the first option that is out of its range or contradicts another.
 */
export const configureSegmentation: (
  recipe: RecipeName | null,
  ...layers: readonly Settings<keyof SegmentationConfig & string>[]
) => Effect.Effect<SegmentationConfig, ConfigError> = SEGMENTATION_OPTIONS.configure;
