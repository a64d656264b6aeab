/** Segmentors on a command line: a file, and flags for what it does not say or what is to be otherwise. */
import { Console, Effect, Option } from "effect";
import {
  type RecipeName,
  SEGMENTATION_OPTIONS,
  type SegmentationConfig,
} from "../../pipeline/transfer/segmentation/config.ts";
import { type SavedSegmentor, segmentorOf } from "../../pipeline/transfer/segmentation/weights.ts";
import type { Settings } from "../../pipeline/run/options.ts";
import type { WeightsFile } from "../../pipeline/weights/weights_file.ts";
import { recipeFlag } from "./common_flags.ts";
import { givenSettings, someFlags } from "./config_flags.ts";

type Name = keyof SegmentationConfig & string;

const SHOWING = {
  testMode: "predict pictures as a whole, or in windows whose scores are averaged",
  longSide: "pictures are resized so that their longer side is at most this, in pixels,",
  shortSide: "and their shorter side at most this",
  cropSize: "side of the windows, in pixels",
  windowStride: "pixels from one window to the next",
  pixelStatistics:
    "how pixels are normalised: by ImageNet's mean and deviation, or by those of pixels from 0 to 1 although " +
    "they go to 255",
  alignCorners: "enlarge scores with their corner pixels aligned",
  outputStride: "input pixels per pixel of the scores",
  headDilation: "dilation of the head's first two convolutions",
} as const satisfies Partial<Record<Name, string>>;

/** How pictures are shown to a segmentor, by default as the file says. */
export const segmentorFlags = { recipe: recipeFlag, ...someFlags(SEGMENTATION_OPTIONS, SHOWING) };

const LABELS = {
  dataset: "how the data set is laid out; by default as in training",
  valList: "masks: file with the names of the pictures, one a line; by default the folders val/",
  classFile: "masks: YAML file of the classes; by default classes.yaml in the data set's folder",
  labelKind: "coco: which annotations; by default as in training",
  reduceZeroLabel: "labels on disk begin at 1, and 0 is ignored; by default as in training",
} as const satisfies Partial<Record<Name, string>>;

/** Where a segmentor's labels are, by default as the file says. */
export const labelMapFlags = someFlags(SEGMENTATION_OPTIONS, LABELS);

/** Files of a run's data set: another command looks for them anew. */
const OF_THE_RUN: readonly Name[] = ["trainList", "valList", "classFile"];

/**
 * The segmentor in a file, with the options that the flags change. Prints what was assumed. Fails with a `ConfigError` where
 * a flag is wrong.
 */
export const segmentorFrom = Effect.fn("segmentorFrom")(function* (
  weights: WeightsFile,
  flags: Partial<Readonly<Record<Name, Option.Option<unknown>>>> & {
    readonly recipe: Option.Option<RecipeName>;
  },
) {
  const saved = yield* segmentorOf(weights, Option.getOrNull(flags.recipe));
  for (const note of saved.notes) yield* Console.error(`slotcon: ${note}`);
  const { names, table } = SEGMENTATION_OPTIONS;
  const given = givenSettings(
    names.filter((name) => flags[name] !== undefined),
    flags as Required<typeof flags>,
  );
  const forgotten = [...OF_THE_RUN, ...given.has("dataset") ? ["labelKind"] : []];
  const recorded: Settings<Name> = new Map(names.map((name) => {
    const value = forgotten.includes(name) ? null : saved.config[name];
    return [name, { value, where: `"${weights.file}"` }];
  }));
  const config = yield* SEGMENTATION_OPTIONS.configure(null, recorded, given);
  return { ...saved, config: { ...config, numWorkers: table.numWorkers.initial! } } satisfies SavedSegmentor;
});
