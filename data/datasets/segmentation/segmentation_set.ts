/** Data sets for semantic segmentation: images, and the class of each of their pixels. */
import { Data, type Effect } from "effect";
import type { LabelError } from "../coco_annotations.ts";
import type { LabelKind } from "../coco_labels.ts";
import type { LabelSource } from "./label_source.ts";

/** How the labels of a data set are stored. */
export type SegmentationDataset = "voc" | "cityscapes" | "ade20k" | "masks" | "coco";

/** A class: its name, and the colour that shows it. */
export interface SegmentationClass {
  /** The name. */
  readonly name: string;
  /** Red, green and blue, 0 … 255. */
  readonly color: readonly [number, number, number];
}

/** An image of a split. */
export interface SegmentationSample {
  /** The image's path inside of its folder, without suffix. */
  readonly name: string;
  /** The image's file. */
  readonly image: string;
  /** Where its labels come from, as plain data, which a worker can be sent. Fails where annotations are damaged. */
  readonly labels: Effect.Effect<LabelSource, LabelError>;
}

/** A split of a data set. */
export interface SegmentationSet {
  /** Its classes, in the order of their numbers. */
  readonly classes: readonly SegmentationClass[];
  /** Its images, in the data set's order. */
  readonly samples: readonly SegmentationSample[];
  /** What was left out, as sentences. */
  readonly warnings: readonly string[];
}

/** Which data set to open: options of a run. */
export interface SegmentationSetOptions {
  /** How it is laid out. */
  readonly dataset: SegmentationDataset;
  /** Its folder. */
  readonly dataDir: string;
  /** Of masks: the list of training images; null for the folders train/. */
  readonly trainList: string | null;
  /** Of masks: the list of validation images; null for the folders val/. */
  readonly valList: string | null;
  /** Of masks: the file of classes; null for classes.yaml in the folder. */
  readonly classFile: string | null;
  /** Of coco: which annotations; null for the first that are there. */
  readonly labelKind: LabelKind | null;
  /** Whether stored labels begin at 1, and 0 is ignored. */
  readonly reduceZeroLabel: boolean;
  /** How many training images to use, which the seed chooses; null for all. */
  readonly trainImages: number | null;
  /** The seed of the run. */
  readonly seed: number;
}

/** There is no data set, or it contradicts itself: what was looked for, and what was found. */
export class SegmentationSetError extends Data.Error<{
  readonly subject: string;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "SegmentationSetError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot take a data set from "${this.subject}": ${this.reason}`;
  }
}
