/** The classes of published data sets: their names, and the colours that are usual for them. */
import { fromHex } from "./class_file.ts";
import facts from "./published.json" with { type: "json" };
import type { SegmentationClass } from "./segmentation_set.ts";

/** A published data set whose classes are known. */
export type PublishedDataset = "voc" | "cityscapes" | "ade20k";

/** The classes of a data set, in the order of their numbers. */
export const publishedClasses = (dataset: PublishedDataset): readonly SegmentationClass[] =>
  Object.entries<string>(facts[dataset].classes).map(([name, color]) => ({ name, color: fromHex(color) }));

/** The class, 0 … 18, of the numbers in Cityscapes' labelIds that have one. */
export const CITYSCAPES_TRAIN_IDS: ReadonlyMap<number, number> = new Map(
  Object.entries(facts.cityscapes.trainIds).map(([id, label]) => [Number(id), label]),
);
