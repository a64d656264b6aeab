/**
 * The stage from a list of images to batches for the GPU: decode, draw the crops, pack.
 *
 * What is in the batch of a step depends on the images, the seed and the step alone: not on the number of workers or
 * ranks, nor on the step at which a run was resumed. Workers (decode_worker.ts) make the batches; this stage says which
 * images each batch has, and replaces those that cannot be decoded.
 */
import { Data, Effect, Stream } from "effect";
import { permutation } from "../../data/random/random.ts";
import { badImages, type TooManyBadImagesError } from "../run/bad_images.ts";
import type { StepBatch } from "../run/batch.ts";
import { StageSpan } from "../run/otlp.ts";
import { requester, type WorkerError } from "../run/worker.ts";
import type { Config } from "./config.ts";
import type { BatchReply, BatchRequest } from "./decode_worker.ts";
import type { PackedBatch } from "./pack.ts";

/** One step's input on its way to the GPU. */
export interface Batch extends PackedBatch, StepBatch {}

/** What the batches of a run depend on. */
export interface DecodeConfig
  extends Pick<Config, "batchSize" | "imageSize" | "minScale" | "seed" | "numWorkers" | "maxBadImages"> {
  /** Bytes of a batch's pixel buffer. */
  readonly pixelCapacity: number;
  /** Most taps of the GPU's resampling (pack.ts). */
  readonly maxTaps: number;
  /** The rank whose share of each batch to make; 0 if not given. */
  readonly rank?: number;
  /** Ranks that share each batch; 1 if not given. */
  readonly world?: number;
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

/** The word of a random key that tells the draws of orders, and of crops, from the others of a seed. */
const ORDER = 2, CROPS = 3;

/**
 * Batches from step `firstStep` on, without end. Ending the stream ends its workers. Whoever has uploaded a batch
 * should `release` its arrays (data/images/release.ts).
 */
export const batches = (
  images: readonly string[],
  config: DecodeConfig,
  firstStep = 0,
): Stream.Stream<Batch, BatchTooLargeError | TooManyBadImagesError | WorkerError> =>
  Stream.unwrap(Effect.gen(function* () {
    const { batchSize, seed, minScale, imageSize, maxTaps, pixelCapacity: capacity } = config;
    const { rank = 0, world = 1 } = config;
    const own = batchSize / world;
    const perEpoch = stepsPerEpoch(images.length, batchSize);
    if (perEpoch === 0) return yield* new BatchTooLargeError({ batchSize, images: images.length });

    const span = yield* StageSpan;
    const workers = yield* Effect.replicateEffect(decodeWorker, config.numWorkers);
    const order = epochOrder(images.length, seed);
    const bad = badImages(images.length, config);

    const load = Effect.fnUntraced(function* (step: number) {
      const epoch = Math.floor(step / perEpoch);
      const begin = (step % perEpoch) * batchSize + rank * own;
      const planned = order(epoch).subarray(begin, begin + own);
      const keys = Array.from(planned, (image) => [seed, CROPS, epoch, image]);
      const worker = step % workers.length;
      while (true) {
        const taken = Array.from(planned, (image) => bad.standIn(image, epoch));
        const paths = taken.map((image) => images[image]);
        const reply = yield* workers[worker]({
          paths,
          keys,
          minScale,
          table: { imageSize, maxTaps, capacity },
        });
        if (reply.kind === "batch") {
          const badImages = taken.filter((image, i) => image !== planned[i]).length;
          return { ...reply.batch, step, epoch, images: paths, badImages, worker, times: reply.times };
        }
        yield* bad.add(reply.bad.map(({ place, reason }) => ({ image: taken[place], reason })));
      }
    });

    return Stream.iterate(firstStep, (step) => step + 1).pipe(
      // Each worker makes one batch and has the next request waiting, so that it goes on while this thread is blocked.
      Stream.mapEffect((step) => load(step).pipe(span("decode", step)), { concurrency: 2 * workers.length }),
    );
  }));

/** The order of an epoch's images. The last order is kept, since an epoch has many steps. */
const epochOrder = (images: number, seed: number) => {
  let kept: { epoch: number; order: Uint32Array } | null = null;
  return (epoch: number): Uint32Array => {
    if (kept?.epoch !== epoch) kept = { epoch, order: permutation(images, seed, ORDER, epoch) };
    return kept.order;
  };
};

const decodeWorker = requester<Omit<BatchRequest, "id">, BatchReply>(
  new URL("./decode_worker.ts", import.meta.url),
);
