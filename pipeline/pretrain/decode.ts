/**
 * The stage from a list of pictures to batches for the GPU: decode, draw the crops, pack.
 *
 * What is in the batch of a step depends on the pictures, the seed and the step alone: not on the number of workers or
 * ranks, nor on where a run was resumed. Workers (data/decode_worker.ts) do the work; this stage says what they have to make,
 * and sees to files that cannot be decoded.
 */
import { Effect, Schema, Stream } from "effect";
import { permutation, randomStream } from "../../data/random/random.ts";
import { StageSpan } from "../run/otlp.ts";
import { requester } from "../run/worker.ts";
import type { Config } from "./config.ts";
import type { BatchReply, BatchRequest, BatchTimes } from "./decode_worker.ts";
import type { PackedBatch } from "./pack.ts";

/** One step's input on its way to the GPU. */
export interface Batch extends PackedBatch {
  readonly step: number;
  readonly epoch: number; // from 0
  readonly images: readonly string[]; // paths, in the order of the samples
  readonly badImages: number; // how many of them stand in for pictures that cannot be decoded
  readonly worker: number; // who made it, from 0
  readonly times: BatchTimes; // and when
}

export interface DecodeConfig
  extends Pick<Config, "batchSize" | "imageSize" | "minScale" | "seed" | "numWorkers" | "maxBadImages"> {
  readonly pixelCapacity: number; // bytes of a batch's pixel buffer
  readonly maxTaps: number; // of the GPU's resampling, see data/view_table.ts
  readonly rank?: number; // which part of each batch is made, of as many as there are ranks
  readonly world?: number;
}

export class BatchTooLargeError extends Schema.TaggedError<BatchTooLargeError>()("BatchTooLarge", {
  batchSize: Schema.Int,
  images: Schema.Int,
}) {
  override get message() {
    return `--batch-size ${this.batchSize} is more than the ${this.images} pictures of the data set: lower it`;
  }
}

export class TooManyBadImagesError extends Schema.TaggedError<TooManyBadImagesError>()("TooManyBadImages", {
  reasons: Schema.Array(Schema.String), // of each bad file, in the order of their discovery
  images: Schema.Int,
  maxBadImages: Schema.Finite,
}) {
  override get message() {
    const { reasons, images, maxBadImages } = this;
    const first = reasons.slice(0, 5).map((reason) => `\n  ${reason}`).join("");
    return `${reasons.length} of ${images} pictures cannot be decoded, more than --max-bad-images ${maxBadImages} ` +
      `allows: mend or remove them, or raise it. The first of them:${first}`;
  }
}

/** Steps of an epoch: the last pictures of its order that fill no batch are left out. */
export const stepsPerEpoch = (images: number, batchSize: number): number => Math.floor(images / batchSize);

/** What tells these draws of a seed from each other and from all others: the second word of their keys. */
const ORDER = 2, CROPS = 3, STAND_IN = 4;

/**
 * Batches from step `firstStep` on, without end. Ending the stream ends its workers. Whoever has uploaded a batch
 * should `release` its arrays (data/release.ts).
 */
export const batches = (images: readonly string[], config: DecodeConfig, firstStep = 0) =>
  Stream.unwrap(Effect.gen(function* () {
    const { batchSize, seed, minScale, imageSize, maxTaps, pixelCapacity: capacity } = config;
    const { rank = 0, world = 1 } = config;
    const own = batchSize / world;
    const perEpoch = stepsPerEpoch(images.length, batchSize);
    if (perEpoch === 0) return yield* new BatchTooLargeError({ batchSize, images: images.length });

    const span = yield* StageSpan;
    const workers = yield* Effect.replicateEffect(decodeWorker, config.numWorkers);
    const order = epochOrder(images.length, seed);
    const badFiles = watchBadFiles(images.length, config);

    const load = Effect.fnUntraced(function* (step: number) {
      const epoch = Math.floor(step / perEpoch);
      const begin = (step % perEpoch) * batchSize + rank * own;
      const planned = order(epoch).subarray(begin, begin + own);
      const keys = Array.from(planned, (image) => [seed, CROPS, epoch, image]);
      const worker = step % workers.length;
      while (true) {
        const taken = Array.from(planned, (image) => badFiles.standIn(image, epoch));
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
        yield* badFiles.add(reply.bad.map(({ place, reason }) => ({ image: taken[place], reason })));
      }
    });

    return Stream.iterate(firstStep, (step) => step + 1).pipe(
      // Each worker makes one batch and has the next one waiting, so it need not pause while this thread is blocked.
      Stream.mapEffect((step) => load(step).pipe(span("decode", step)), { concurrency: 2 * workers.length }),
    );
  }));

/** The order of an epoch's pictures. The last one asked for is kept: an epoch has many steps. */
const epochOrder = (images: number, seed: number) => {
  let kept: { epoch: number; order: Uint32Array } | null = null;
  return (epoch: number): Uint32Array => {
    if (kept?.epoch !== epoch) kept = { epoch, order: permutation(images, seed, ORDER, epoch) };
    return kept.order;
  };
};

/** Remembers the files that cannot be decoded, names each once, and says which pictures take their places. */
const watchBadFiles = (images: number, { seed, maxBadImages }: DecodeConfig) => {
  const reasons = new Map<number, string>();
  return {
    /** The picture itself, or if it is bad the first good one among random others that it always gets. */
    standIn: (image: number, epoch: number): number => {
      const random = randomStream(seed, STAND_IN, epoch, image);
      while (reasons.has(image)) image = random.integer(images);
      return image;
    },
    add: Effect.fnUntraced(function* (found: readonly { readonly image: number; readonly reason: string }[]) {
      for (const { image, reason } of found) {
        if (reasons.has(image)) continue; // another batch met it meanwhile
        reasons.set(image, reason);
        yield* Effect.logWarning(`${reason}. Another picture takes its place.`);
      }
      if (reasons.size > maxBadImages * images || reasons.size === images) {
        return yield* new TooManyBadImagesError({ reasons: [...reasons.values()], images, maxBadImages });
      }
    }),
  };
};

const decodeWorker = requester<Omit<BatchRequest, "id">, BatchReply>(
  new URL("./decode_worker.ts", import.meta.url),
);
