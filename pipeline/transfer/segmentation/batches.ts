/**
 * The stage from a data set to batches for the device: decode, augment, pack. Workers (batch_worker.ts) make the batches;
 * which images each has is said in run/batches.ts.
 */
import { Effect, type Stream } from "effect";
import type { SegmentationSample } from "../../../data/datasets/segmentation/segmentation_set.ts";
import type { TooManyBadImagesError } from "../../run/bad_images.ts";
import type { StepBatch } from "../../run/batch.ts";
import { type BatchOptions, type BatchReply, batchStream } from "../../run/batches.ts";
import { requester, type WorkerError } from "../../run/worker.ts";
import type { BatchRequest } from "./batch_worker.ts";
import type { SegmentationConfig } from "./config.ts";
import type { AugmentationOptions } from "./draws.ts";
import type { PackedBatch } from "./pack.ts";
import { requestedSample } from "./samples.ts";

/** One step's input on its way to the device. */
export interface Batch extends PackedBatch, StepBatch {}

/** What the batches of a run depend on. */
export interface SegmentationBatchOptions
  extends
    BatchOptions,
    AugmentationOptions,
    Pick<SegmentationConfig, "dropout" | "headChannels" | "auxiliaryWeight" | "auxiliaryChannels"> {}

/**
 * Batches from step `firstStep` on, without end. Samples whose image or labels cannot be read are named in a warning and
 * replaced by others. Ending the stream ends its workers. Whoever has uploaded a batch should `release` its arrays
 * (data/images/release.ts).
 */
export const batches = (
  samples: readonly SegmentationSample[],
  options: SegmentationBatchOptions,
  firstStep = 0,
): Stream.Stream<Batch, TooManyBadImagesError | WorkerError> => {
  const images = samples.map(({ image }) => image);
  return batchStream(images, options, {
    worker: batchWorker,
    request: Effect.fnUntraced(function* ({ step, first, taken }) {
      const { longSide, shortSide, minRatio, maxRatio, cropSize, maxClassShare, flip, colorDistortion } =
        options;
      const { dropout, headChannels, auxiliaryWeight, auxiliaryChannels, seed } = options;
      return {
        samples: yield* Effect.forEach(taken, (image) => requestedSample(samples[image])),
        keys: taken.map((_, place) => [seed, step, first + place]),
        augmentation: {
          longSide,
          shortSide,
          minRatio,
          maxRatio,
          cropSize,
          maxClassShare,
          flip,
          colorDistortion,
        },
        dropout: dropout === 0 ? null : {
          probability: dropout,
          headChannels,
          auxiliaryChannels: auxiliaryWeight === 0 ? 0 : auxiliaryChannels,
        },
      };
    }),
  }, firstStep);
};

const batchWorker = requester<Omit<BatchRequest, "id">, BatchReply<PackedBatch>>(
  new URL("./batch_worker.ts", import.meta.url),
);
