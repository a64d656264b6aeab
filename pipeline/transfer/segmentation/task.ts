/** Fine-tuning on semantic segmentation as its checkpoints describe it. */
import { Effect, Schema } from "effect";
import type { SegmentationClass } from "../../../data/datasets/segmentation/segmentation_set.ts";
import type { Task } from "../../run/checkpoint_file.ts";
import { SEGMENTATION_OPTIONS, type SegmentationConfig } from "./config.ts";

/** What a checkpoint of fine-tuning says of its run. */
export interface SegmentationMeta {
  /** Optimiser steps done. */
  readonly step: number;
  /** Training images. */
  readonly instances: number;
  /** The classes, in the order of the logits. */
  readonly classes: readonly SegmentationClass[];
  /** mIoU on the validation images, in per cent; null where this state was not scored. */
  readonly miou: number | null;
  /** The options of the run. */
  readonly config: SegmentationConfig;
}

const byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }));

/** Fine-tuning on semantic segmentation, for reading and writing its checkpoints. */
export const SEGMENTATION: Task<SegmentationMeta> = {
  name: SEGMENTATION_OPTIONS.task,
  meta: Schema.Struct({
    step: Schema.Int,
    instances: Schema.Int,
    classes: Schema.Array(
      Schema.Struct({ name: Schema.String, color: Schema.Tuple([byte, byte, byte]) }),
    ),
    miou: Schema.NullOr(Schema.Finite).pipe(Schema.withDecodingDefaultKey(Effect.succeed(null))),
    config: SEGMENTATION_OPTIONS.schema,
  }) as unknown as Task<SegmentationMeta>["meta"],
};
