/**
 * A worker that makes whole batches: reads the files, decodes them, draws their views and packs them for the GPU.
 *
 * It stands apart from the main thread because that one stops whenever it waits for the GPU. A message asks for one
 * batch and is answered by one message; the arrays of a batch move, they are not copied. Only the request decides what
 * is in the batch, so that it does not matter which worker makes it, nor when.
 */
import { Effect, Result } from "effect";
import { DecodeError, decodeImage } from "../../data/images/decode_image.ts";
import { release } from "../../data/images/release.ts";
import { cropResize } from "../../data/images/resample.ts";
import { randomStream } from "../../data/random/random.ts";
import type { AugmentationRowSize } from "../../ops/image/augmentation_row.ts";
import type { BatchTimes } from "../run/batch.ts";
import { drawTwoCrops } from "./draws.ts";
import { packBatch, type PackedBatch, type Sample } from "./pack.ts";

export interface BatchRequest {
  readonly id: number; // comes back with the reply
  readonly paths: readonly string[];
  readonly keys: readonly (readonly number[])[]; // of the random draws of each picture
  readonly minScale: number;
  readonly table: AugmentationRowSize & { readonly capacity: number };
}

export type BatchReply =
  | { readonly id: number; readonly kind: "batch"; readonly batch: PackedBatch; readonly times: BatchTimes }
  | { readonly id: number; readonly kind: "bad files"; readonly bad: readonly BadFile[] }
  | { readonly id: number; readonly kind: "failure"; readonly reason: string };

export interface BadFile {
  readonly place: number; // in the request
  readonly reason: string; // a sentence that names the file
}

/** Pictures at work at a time: while one is decoded, the file of the next is read and views are drawn. */
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

/** Milliseconds since 1970, finer than `Date.now()` has them. */
const now = () => performance.timeOrigin + performance.now();

const readSample = Effect.fnUntraced(function* (path: string, key: readonly number[], minScale: number) {
  const bytes = yield* Effect.tryPromise({
    try: () => Deno.readFile(path),
    catch: (error) => new DecodeError({ file: path, reason: `it cannot be read (${whyOf(error)})` }),
  });
  const picture = yield* decodeImage(bytes, path);
  release(bytes);
  return { picture, draw: drawTwoCrops(randomStream(...key), picture, { minScale }) };
});

/** What the system says, without Deno's repetition of the path. */
const whyOf = (error: unknown): string =>
  String(error instanceof Error ? error.message : error).split(": ")[0];

/**
 * The same views of a smaller picture, to the bit: both are made here and stand one above the other. So a batch of
 * large photographs takes up no more memory than one of small ones.
 */
const finished = ({ picture, draw: { views, coords } }: Sample, size: number): Sample => {
  const rgb = new Uint8Array(2 * size * size * 3);
  const [upper, lower] = views.map((view, side) => {
    rgb.set(cropResize(picture, view.box, size).rgb, side * size * size * 3);
    return { ...view, box: [side * size, 0, size, size] as const };
  });
  release(picture.rgb);
  return { picture: { width: size, height: 2 * size, rgb }, draw: { views: [upper, lower], coords } };
};

/** This side of the channel to the main thread. */
declare const self: {
  onmessage: (message: { readonly data: BatchRequest }) => void;
  postMessage(reply: BatchReply, transfer: readonly ArrayBufferLike[]): void;
};

// One batch after another, however many are asked for: only one at a time takes up memory.
let queue = Promise.resolve();
self.onmessage = ({ data: request }) => {
  queue = queue.then(async () => {
    const failure = (error: unknown) => ({ id: request.id, kind: "failure", reason: String(error) } as const);
    const reply = await Effect.runPromise(makeBatch(request)).catch(failure);
    const arrays = reply.kind === "batch" ? Object.values(reply.batch) : [];
    self.postMessage(reply, arrays.map((array) => array.buffer));
  });
};
