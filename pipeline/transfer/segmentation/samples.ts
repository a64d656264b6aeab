/** Images and their labels on the way to a worker, and reading them there. */
import { Effect, Result } from "effect";
import { LabelError } from "../../../data/datasets/coco_annotations.ts";
import { type LabelSource, readLabels } from "../../../data/datasets/segmentation/label_source.ts";
import type { SegmentationSample } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { type DecodeError, readUpright } from "../../../data/images/decode_image.ts";
import type { LabelledImage } from "./augment.ts";

/** A sample as plain data, which a worker can be sent. */
export interface RequestedSample {
  /** The image's file. */
  readonly image: string;
  /** Where its labels come from, or why that cannot be told: a sentence. */
  readonly labels: LabelSource | {
    readonly kind: "problem";
    readonly error: string;
    readonly subject: string;
  };
}

/** A sample as plain data. */
export const requestedSample = (
  { image, labels }: Pick<SegmentationSample, "image" | "labels">,
): Effect.Effect<RequestedSample> =>
  Effect.map(Effect.result(labels), (found) => ({
    image,
    labels: Result.isSuccess(found)
      ? found.success
      : { kind: "problem", error: found.failure.reason, subject: found.failure.subject },
  }));

/** Reads an image, turned upright, and its labels. Fails where either cannot be read, or they differ in size. */
export const readSample: (
  sample: RequestedSample,
) => Effect.Effect<LabelledImage, DecodeError | LabelError> = Effect.fnUntraced(
  function* ({ image, labels }) {
    if (labels.kind === "problem") {
      return yield* new LabelError({ subject: labels.subject, reason: labels.error });
    }
    const picture = yield* readUpright(image);
    const { width, height } = picture;
    return { picture, labels: yield* readLabels(labels, { name: image, width, height }) };
  },
);
