/** The stage from a list of pictures to batches of whole pictures, resized and cropped, for the GPU. */
import { Deferred, Effect, Stream } from "effect";
import { DecodeWorkerError } from "../decode.ts";
import type { FrameReply, FrameRequest, Frames } from "./frame_worker.ts";
import type { Frame } from "./framed.ts";

/** Pictures on their way to the GPU. */
export interface FramedBatch extends Frames {
  readonly first: number; // place of its first picture in the list
}

/**
 * All pictures in their order, `batch` at a time; workers decode them while this thread waits for the GPU. Pictures that
 * cannot be decoded keep their places. Whoever has uploaded a batch should `release` its pixels. Ending the stream ends
 * the workers.
 */
export const framedBatches = (
  files: readonly string[],
  { batch, frame }: { readonly batch: number; readonly frame: Frame },
): Stream.Stream<FramedBatch, DecodeWorkerError> =>
  Stream.unwrap(Effect.gen(function* () {
    const count = Math.ceil(files.length / batch);
    const workers = yield* Effect.replicateEffect(
      frameWorker,
      Math.min(8, navigator.hardwareConcurrency, count),
    );
    return Stream.range(0, count - 1).pipe(
      // Each worker makes one batch and has the next one waiting, so it need not pause while this thread is blocked.
      Stream.mapEffect((i) => {
        const first = i * batch;
        const request = { files: files.slice(first, first + batch), frame };
        return Effect.map(
          workers[i % workers.length](request),
          (frames): FramedBatch => ({ first, ...frames }),
        );
      }, { concurrency: 2 * workers.length }),
    );
  }));

/** A worker that ends with the scope, as the function from a request to its reply. */
const frameWorker = Effect.gen(function* () {
  const worker = yield* Effect.acquireRelease(
    Effect.sync(() => new Worker(new URL("./frame_worker.ts", import.meta.url), { type: "module" })),
    (worker) => Effect.sync(() => worker.terminate()),
  );
  const crash = yield* Deferred.make<never, DecodeWorkerError>();
  worker.onerror = (event) => {
    event.preventDefault(); // or it would end the whole program
    Deferred.doneUnsafe(crash, new DecodeWorkerError({ reason: event.message }));
  };
  const waiting = new Map<number, (reply: Effect.Effect<Frames, DecodeWorkerError>) => void>();
  worker.onmessage = ({ data: reply }: MessageEvent<FrameReply>) => {
    waiting.get(reply.id)?.(
      reply.kind === "frames"
        ? Effect.succeed(reply.frames)
        : new DecodeWorkerError({ reason: reply.reason }),
    );
    waiting.delete(reply.id);
  };
  let requests = 0;
  return (request: Omit<FrameRequest, "id">) =>
    Effect.callback<Frames, DecodeWorkerError>((resume) => {
      const id = requests++;
      waiting.set(id, resume);
      worker.postMessage({ ...request, id } satisfies FrameRequest);
    }).pipe(Effect.raceFirst(Deferred.await(crash)));
});
