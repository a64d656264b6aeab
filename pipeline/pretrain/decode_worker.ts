/**
 * A worker that makes whole batches: it reads and decodes files, draws their views and packs them for the GPU.
 *
 * It is a thread of its own because the main thread blocks whenever it waits for the GPU. One message asks for a batch
 * and one message answers; the arrays of a batch are transferred, not copied. A batch depends on its request alone,
 * not on the worker that makes it or on the time.
 */
import { Effect, Result } from "effect";
import { readPicture } from "../../data/images/decode_image.ts";
import { release } from "../../data/images/release.ts";
import { randomStream } from "../../data/random/random.ts";
import type { AugmentationRowSize } from "../../ops/image/augmentation_row.ts";
import type { BadFile, BatchReply } from "../run/batches.ts";
import { answerRequests } from "../run/worker.ts";
import { drawTwoCrops } from "./draws.ts";
import { finishViews, packBatch, type PackedBatch, type Sample } from "./pack.ts";

/** What to put into a batch. */
export interface BatchRequest {
  /** The number of the request, for the reply. */
  readonly id: number;
  /** The files of the images. */
  readonly paths: readonly string[];
  /** The keys of each image's random draws. */
  readonly keys: readonly (readonly number[])[];
  /** The smallest share of an image's area that a view aims at. */
  readonly minScale: number;
  /** How to pack: the size of a row of the view table, and the bytes of the pixel buffer. */
  readonly table: AugmentationRowSize & { readonly capacity: number };
}

/** Images in work at a time: while one is decoded, the file of the next is read and views are drawn. */
const AT_ONCE = 2;

const makeBatch = Effect.fnUntraced(function* ({ id, paths, keys, minScale, table }: BatchRequest) {
  const begin = now();
  const share = table.capacity / paths.length;
  const light = (sample: Sample) =>
    sample.picture.rgb.length > 4 * share ? finished(sample, table.imageSize) : sample;
  const results = yield* Effect.forEach(
    paths,
    (path, place) => Effect.result(Effect.map(readSample(path, keys[place], minScale), light)),
    { concurrency: AT_ONCE },
  );
  const samples: Sample[] = [];
  const bad: BadFile[] = [];
  results.forEach((result, place) => {
    if (Result.isSuccess(result)) samples.push(result.success);
    else bad.push({ place, reason: result.failure.message });
  });
  if (bad.length > 0) return { id, kind: "bad files", bad } as const;
  const decoded = now();
  const batch = packBatch(samples, table);
  release(...samples.map(({ picture }) => picture.rgb));
  return { id, kind: "batch", batch, times: { begin, decoded, packed: now() } } as const;
});

/** Milliseconds since 1970, at a finer resolution than `Date.now()`. */
const now = () => performance.timeOrigin + performance.now();

const readSample = Effect.fnUntraced(function* (path: string, key: readonly number[], minScale: number) {
  const picture = yield* readPicture(path);
  return { picture, draw: drawTwoCrops(randomStream(...key), picture, { minScale }) };
});

/**
 * The sample with its views finished here, so that a batch of large photographs takes no more memory than one of small
 * ones.
 */
const finished = (sample: Sample, size: number): Sample => {
  const small = finishViews(sample, size);
  release(sample.picture.rgb);
  return small;
};

answerRequests<BatchRequest, BatchReply<PackedBatch>>(
  makeBatch,
  (reply) => reply.kind === "batch" ? Object.values(reply.batch) : [],
);
