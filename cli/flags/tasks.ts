/** The tasks that runs train, as commands for any of them take them. */
import { Effect, type Scope, Stream } from "effect";
import { openSegmentation } from "../../data/datasets/segmentation/open_segmentation.ts";
import { listImages } from "../../data/datasets/image_list.ts";
import { packingFor } from "../../pipeline/pretrain/augment.ts";
import { type Config, type PresetName, PRETRAIN_OPTIONS } from "../../pipeline/pretrain/config.ts";
import { batches } from "../../pipeline/pretrain/decode.ts";
import { PRETRAIN_STEP } from "../../pipeline/pretrain/planned_step.ts";
import type { RunConfig, TaskOptions } from "../../pipeline/run/options.ts";
import type { TaskStep } from "../../pipeline/run/step_plan.ts";
import {
  type RecipeName,
  SEGMENTATION_OPTIONS,
  type SegmentationConfig,
} from "../../pipeline/transfer/segmentation/config.ts";
import { SEGMENTATION_STEP } from "../../pipeline/transfer/segmentation/planned_step.ts";
import { wholeImages } from "../../pipeline/transfer/segmentation/whole_images.ts";

/** A task: its options, its step and its images. */
export interface CliTask<C extends RunConfig, Preset extends string> {
  readonly options: TaskOptions<C, Preset>;
  /** The run that commands look at where no option names one. */
  readonly usual: Preset;
  readonly step: TaskStep<C>;
  /** How many images the data set of a run has. */
  readonly countImages: (config: C) => Effect.Effect<number, Error>;
  /** Batches of so many of these image files, as a run's workers make them, without end. `maxBinding` is in bytes. */
  readonly batches: (
    files: readonly string[],
    config: C,
    maxBinding: number,
  ) => Stream.Stream<unknown, Error, Scope.Scope>;
}

export const PRETRAINING: CliTask<Config, PresetName> = {
  options: PRETRAIN_OPTIONS,
  usual: "demo",
  step: PRETRAIN_STEP,
  countImages: (config) => Effect.map(listImages(config), ({ length }) => length),
  batches: (files, config, maxBinding) => {
    const { capacity: pixelCapacity, maxTaps } = packingFor(config.imageSize, config.batchSize, maxBinding);
    return batches(files, { ...config, pixelCapacity, maxTaps });
  },
};

export const SEGMENTATION: CliTask<SegmentationConfig, RecipeName> = {
  options: SEGMENTATION_OPTIONS,
  usual: "voc",
  step: SEGMENTATION_STEP,
  countImages: (config) => Effect.map(openSegmentation(config, "train"), ({ samples }) => samples.length),
  // These files have no labels: they are read as those to be segmented are.
  batches: (files, config) =>
    Stream.grouped(wholeImages(files.map((image) => ({ image })), config), config.batchSize),
};
