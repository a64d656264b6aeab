/**
 * Batches of a data set's images, whatever is made of them: the order of epochs, the share of each rank, the workers, and
 * the images that stand in for those that cannot be decoded.
 *
 * What is in the batch of a step depends on the images, the seed and the step alone: not on the number of workers or
 * ranks, nor on the step at which a run was resumed.
 */
import { Effect, type Scope, Stream } from "effect";
import { permutation } from "../../data/random/random.ts";
import { badImages, standIn, type TooManyBadImagesError } from "./bad_images.ts";
import type { BatchTimes, StepBatch } from "./batch.ts";
import type { RunConfig } from "./options.ts";
import { StageSpan } from "./otlp.ts";
import type { WorkerError } from "./worker.ts";

/** Which batches to make. */
export interface BatchOptions extends Pick<RunConfig, "batchSize" | "seed" | "numWorkers" | "maxBadImages"> {
  /** The rank whose share of each batch to make; 0 if not given. */
  readonly rank?: number;
  /** Ranks that share each batch; 1 if not given. */
  readonly world?: number;
}

/** A rank's share of the batch of a step. */
export interface PlannedBatch {
  /** The step, from 0. */
  readonly step: number;
  /** The epoch that the step belongs to, from 0. */
  readonly epoch: number;
  /** The place of the share's first image in the global batch. */
  readonly first: number;
  /** The images that the epoch's order has here, by their indices. */
  readonly planned: Uint32Array;
  /** The images to take: the same, but for those that cannot be decoded. */
  readonly taken: readonly number[];
}

/** A worker's answer to a request for a batch. */
export type BatchReply<Batch> =
  | { readonly id: number; readonly kind: "batch"; readonly batch: Batch; readonly times: BatchTimes }
  | { readonly id: number; readonly kind: "bad files"; readonly bad: readonly BadFile[] }
  | { readonly id: number; readonly kind: "failure"; readonly reason: string };

/** A file that cannot be decoded. */
export interface BadFile {
  /** Its index in the request. */
  readonly place: number;
  /** Why: a sentence that names the file. */
  readonly reason: string;
}

/** How batches are made. */
export interface BatchMaker<Request, Batch> {
  /** A worker that makes batches, as the function from a request to its reply (worker.ts). */
  readonly worker: Effect.Effect<
    (
      request: Request,
    ) => Effect.Effect<Exclude<BatchReply<Batch>, { readonly kind: "failure" }>, WorkerError>,
    never,
    Scope.Scope
  >;
  /** What to ask a worker for. */
  readonly request: (planned: PlannedBatch) => Effect.Effect<Request>;
}

/**
 * Steps of an epoch: the last images of its order, which fill no batch, are left out. Where there are fewer images than
 * one batch has, its order is repeated until it fills one.
 */
export const stepsPerEpoch = (images: number, batchSize: number): number =>
  Math.max(1, Math.floor(images / batchSize));

/** The word of a random key that tells the draws of orders from the others of a seed. */
const ORDER = 2;

/**
 * Batches of `images` (paths) from step `firstStep` on, without end. Ending the stream ends its workers. Whoever has
 * uploaded a batch should `release` its arrays (data/images/release.ts).
 */
export const batchStream = <Request, Batch>(
  images: readonly string[],
  options: BatchOptions,
  { worker, request }: BatchMaker<Request, Batch>,
  firstStep: number,
): Stream.Stream<Batch & StepBatch, TooManyBadImagesError | WorkerError> =>
  Stream.unwrap(Effect.gen(function* () {
    const { batchSize, seed, rank = 0, world = 1 } = options;
    const own = batchSize / world;
    const perEpoch = stepsPerEpoch(images.length, batchSize);
    const span = yield* StageSpan;
    const workers = yield* Effect.replicateEffect(worker, options.numWorkers);
    const order = epochOrder(images.length, seed);
    const bad = badImages<number>(
      images.length,
      options.maxBadImages,
      "Another picture takes its place.",
    );

    const load = Effect.fnUntraced(function* (step: number) {
      const epoch = Math.floor(step / perEpoch);
      const first = rank * own;
      const begin = (step % perEpoch) * batchSize + first;
      const places = order(epoch);
      const planned = Uint32Array.from({ length: own }, (_, i) => places[(begin + i) % places.length]);
      const worker = step % workers.length;
      while (true) {
        const taken = Array.from(
          planned,
          (image) => standIn(image, { bad, images: images.length, seed, epoch }),
        );
        const reply = yield* workers[worker](yield* request({ step, epoch, first, planned, taken }));
        if (reply.kind === "batch") {
          const made: StepBatch = {
            step,
            epoch,
            images: taken.map((image) => images[image]),
            badImages: taken.filter((image, i) => image !== planned[i]).length,
            worker,
            times: reply.times,
          };
          return { ...reply.batch, ...made };
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
