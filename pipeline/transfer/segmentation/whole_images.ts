/** The stage from images to whole resized images for the device, with their labels at original size where there are any. */
import { Effect, Stream } from "effect";
import type { SegmentationSample } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { requester, type WorkerError } from "../../run/worker.ts";
import type { SegmentationConfig } from "./config.ts";
import { requestedSample } from "./samples.ts";
import type { ResizedImage, WholeImageReply, WholeImageRequest } from "./whole_image_worker.ts";

/** An image on its way to the device, whole. */
export interface WholeImage extends ResizedImage {
  /** Tells it from one that cannot be read. */
  readonly kind: "image";
  /** Its index in the list. */
  readonly index: number;
}

/** An image that cannot be read, or whose labels cannot. */
export interface UnreadableImage {
  /** Tells it from others. */
  readonly kind: "bad file";
  /** Its index in the list. */
  readonly index: number;
  /** Why: a sentence that names the file. */
  readonly reason: string;
}

/** An image with labels, or one without. */
export type ImageSource = Pick<SegmentationSample, "image"> & Partial<Pick<SegmentationSample, "labels">>;

/**
 * All images in their order, resized as the options say; workers make them while this thread waits for the device. One
 * that cannot be read keeps its place. Whoever is done with an image should `release` its arrays
 * (data/images/release.ts). Ending the stream ends the workers.
 */
export const wholeImages = (
  samples: readonly ImageSource[],
  options: Pick<SegmentationConfig, "longSide" | "shortSide" | "numWorkers">,
): Stream.Stream<WholeImage | UnreadableImage, WorkerError> =>
  Stream.unwrap(Effect.gen(function* () {
    if (samples.length === 0) return Stream.empty;
    const { longSide, shortSide } = options;
    const workers = yield* Effect.replicateEffect(
      wholeImageWorker,
      Math.min(options.numWorkers, samples.length),
    );
    const load = Effect.fnUntraced(function* (index: number) {
      const { image, labels } = samples[index];
      const sample = labels === undefined
        ? { image, labels: null }
        : yield* requestedSample({ image, labels });
      const reply = yield* workers[index % workers.length]({ sample, resize: { longSide, shortSide } });
      return reply.kind === "image"
        ? { kind: reply.kind, index, ...reply.image }
        : { kind: reply.kind, index, reason: reply.reason };
    });
    return Stream.range(0, samples.length - 1).pipe(
      // Each worker makes one image and has the next request waiting, so that it goes on while this thread is blocked.
      Stream.mapEffect(load, { concurrency: 2 * workers.length }),
    );
  }));

const wholeImageWorker = requester<Omit<WholeImageRequest, "id">, WholeImageReply>(
  new URL("./whole_image_worker.ts", import.meta.url),
);
