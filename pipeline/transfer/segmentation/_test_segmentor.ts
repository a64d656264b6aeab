/** Small segmentors with weights, for tests of what is done with trained ones. */
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { Effect } from "effect";
import type { SegmentationClass } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { livelyValues } from "../../_test_kit.ts";
import { checkpointPieces } from "../../run/checkpoint_file.ts";
import { checkpointShapes, type StateValues } from "../../run/state_layout.ts";
import { SEGMENTATION_OPTIONS, type SegmentationConfig } from "./config.ts";
import { SEGMENTATION } from "./task.ts";
import { segmentorOptions, segmentorState } from "./weights.ts";

/** Small networks of the two published kinds. */
export const SMALL: Readonly<Record<"d16" | "d8", SegmentationConfig>> = {
  d16: { ...Effect.runSync(SEGMENTATION_OPTIONS.configure("voc")), width: 4, headChannels: 6 },
  d8: {
    ...Effect.runSync(SEGMENTATION_OPTIONS.configure("ade20k")),
    ...{ width: 4, headChannels: 6, auxiliaryChannels: 5 },
  },
};
/** Their classes. */
export const CLASSES = ["nothing", "road", "tree"].map((name, i) => ({
  name,
  color: [i, 128, 255 - i] as const,
}));

const valuesOf = (config: SegmentationConfig, classes: number): StateValues =>
  livelyValues(checkpointShapes(segmentorState(segmentorOptions(config, classes))));

/** A checkpoint of fine-tuning in a folder; an optimiser's buffers are in it, too. */
export const smallCheckpoint = Effect.fnUntraced(function* (
  folder: string,
  config: SegmentationConfig,
  classes: readonly SegmentationClass[] = CLASSES,
) {
  const values = valuesOf(config, classes.length);
  const velocity = ["optimizer.decode_head.conv_seg.bias", {
    shape: [3],
    data: new Float32Array(3),
  }] as const;
  const meta = { step: 7, instances: 9, classes, miou: null, config };
  const file = join(folder, `${crypto.randomUUID()}.safetensors`);
  const pieces = yield* checkpointPieces(SEGMENTATION, { meta, tensors: new Map([...values, velocity]) });
  Deno.writeFileSync(file, Buffer.concat(pieces));
  return { file, values };
});
