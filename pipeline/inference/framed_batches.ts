/** The stage from a list of images to batches of whole images, resized and cropped, for the GPU. */
import { Effect, Stream } from "effect";
import type { BadImages, TooManyBadImagesError } from "../run/bad_images.ts";
import { requester, type WorkerError } from "../run/worker.ts";
import type { FrameReply, FrameRequest, Frames } from "./frame_worker.ts";
import type { Frame } from "./framed.ts";

/** Images on their way to the GPU. */
export interface FramedBatch extends Frames {
  /** The index of its first image in the list. */
  readonly first: number;
}

/** How to go through the images of a list. */
export interface FramedOptions {
  /** Images at a time. */
  readonly batch: number;
  /** How to make squares of images. */
  readonly frame: Frame;
  /** The images of the data set that cannot be decoded: those of the list are added. */
  readonly bad: BadImages<string>;
}

/**
 * All images in their order, `batch` at a time; workers decode them while this thread waits for the GPU. Images that
 * cannot be decoded keep their places; fails with a `TooManyBadImagesError` where these are too many. Whoever has
 * uploaded a batch should `release` its pixels. Ending the stream ends the workers.
 */
export const framedBatches = (
  files: readonly string[],
  { batch, frame, bad }: FramedOptions,
): Stream.Stream<FramedBatch, WorkerError | TooManyBadImagesError> =>
  Stream.unwrap(Effect.gen(function* () {
    const count = Math.ceil(files.length / batch);
    const workers = yield* Effect.replicateEffect(
      frameWorker,
      Math.min(8, navigator.hardwareConcurrency, count),
    );
    return Stream.range(0, count - 1).pipe(
      // Each worker makes one batch and has the next request waiting, so that it goes on while this thread is blocked.
      Stream.mapEffect((i) => {
        const first = i * batch;
        const request = { files: files.slice(first, first + batch), frame };
        return Effect.map(
          workers[i % workers.length](request),
          ({ frames }): FramedBatch => ({ first, ...frames }),
        );
      }, { concurrency: 2 * workers.length }),
      Stream.tap(({ first, problems }) =>
        bad.add(
          problems.flatMap((reason, i) => reason === null ? [] : [{ image: files[first + i], reason }]),
        )
      ),
    );
  }));

const frameWorker = requester<Omit<FrameRequest, "id">, FrameReply>(
  new URL("./frame_worker.ts", import.meta.url),
);
