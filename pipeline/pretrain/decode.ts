/**
 * The stage from a list of images to batches for the GPU: decode, draw the crops, pack. Workers (decode_worker.ts) make
 * the batches; which images each has is said in run/batches.ts.
 */
import { Data, Effect, Stream } from "effect";
import type { TooManyBadImagesError } from "../run/bad_images.ts";
import type { StepBatch } from "../run/batch.ts";
import { type BatchOptions, type BatchReply, batchStream } from "../run/batches.ts";
import { requester, type WorkerError } from "../run/worker.ts";
import type { Config } from "./config.ts";
import type { BatchRequest } from "./decode_worker.ts";
import type { PackedBatch } from "./pack.ts";

/** One step's input on its way to the GPU. */
export interface Batch extends PackedBatch, StepBatch {}

/** What the batches of a run depend on. */
export interface DecodeConfig extends BatchOptions, Pick<Config, "imageSize" | "minScale"> {
  /** Bytes of a batch's pixel buffer. */
  readonly pixelCapacity: number;
  /** Most taps of the GPU's resampling (pack.ts). */
  readonly maxTaps: number;
}

/** The data set has fewer images than a batch. */
export class BatchTooLargeError extends Data.Error<{
  readonly batchSize: number;
  readonly images: number;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "BatchTooLargeError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `--batch-size ${this.batchSize} is more than the ${this.images} pictures of the data set: lower it`;
  }
}

/** Steps of an epoch: the last images of its order, which fill no batch, are left out. */
export const stepsPerEpoch = (images: number, batchSize: number): number => Math.floor(images / batchSize);

/** The word of a random key that tells the draws of crops from the others of a seed. */
const CROPS = 3;

/**
 * Batches from step `firstStep` on, without end. Ending the stream ends its workers. Whoever has uploaded a batch
 * should `release` its arrays (data/images/release.ts).
 */
export const batches = (
  images: readonly string[],
  config: DecodeConfig,
  firstStep = 0,
): Stream.Stream<Batch, BatchTooLargeError | TooManyBadImagesError | WorkerError> => {
  const { batchSize, seed, minScale, imageSize, maxTaps, pixelCapacity: capacity } = config;
  if (stepsPerEpoch(images.length, batchSize) === 0) {
    return Stream.fail(new BatchTooLargeError({ batchSize, images: images.length }));
  }
  return batchStream(images, config, {
    worker: decodeWorker,
    request: ({ epoch, planned, taken }) =>
      Effect.succeed({
        paths: taken.map((image) => images[image]),
        keys: Array.from(planned, (image) => [seed, CROPS, epoch, image]),
        minScale,
        table: { imageSize, maxTaps, capacity },
      }),
  }, firstStep);
};

const decodeWorker = requester<Omit<BatchRequest, "id">, BatchReply<PackedBatch>>(
  new URL("./decode_worker.ts", import.meta.url),
);
