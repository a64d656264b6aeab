/**
 * A worker that reads, decodes and frames whole pictures. It stands apart from the main thread because that one stops
 * whenever it waits for the GPU. A message asks for one batch and is answered by one message.
 */
import { Effect, Result } from "effect";
import { readPicture } from "../../data/images/decode_image.ts";
import { release } from "../../data/images/release.ts";
import { type Frame, framed } from "./framed.ts";
import { pack } from "./packed_pictures.ts";

export interface FrameRequest {
  readonly id: number; // comes back with the reply
  readonly files: readonly string[];
  readonly frame: Frame;
}

export type FrameReply =
  | { readonly id: number; readonly kind: "frames"; readonly frames: Frames }
  | { readonly id: number; readonly kind: "failure"; readonly reason: string };

export interface Frames {
  /** [N, S, S], a word a pixel; zeros for pictures that cannot be decoded. */
  readonly pixels: Uint32Array<ArrayBuffer>;
  /** Why a picture cannot be decoded, or null where it could: a sentence that names the file. */
  readonly problems: readonly (string | null)[];
}

/** Pictures at work at a time: while one is decoded, the file of the next is read. */
const AT_ONCE = 2;

const frameAll = Effect.fnUntraced(function* ({ files, frame }: FrameRequest) {
  const words = frame.crop ** 2;
  const pixels = new Uint32Array(files.length * words);
  const problems = yield* Effect.forEach(files, (file, i) =>
    readPicture(file).pipe(
      Effect.map((picture) => {
        pack(framed(picture, frame), pixels.subarray(i * words, (i + 1) * words));
        release(picture.rgb);
      }),
      Effect.result,
      Effect.map((result) => Result.isSuccess(result) ? null : result.failure.message),
    ), { concurrency: AT_ONCE });
  return { pixels, problems } satisfies Frames;
});

/** This side of the channel to the main thread. */
declare const self: {
  onmessage: (message: { readonly data: FrameRequest }) => void;
  postMessage(reply: FrameReply, transfer: readonly ArrayBufferLike[]): void;
};

// One batch after another, however many are asked for: only one at a time takes up memory.
let queue = Promise.resolve();
self.onmessage = ({ data: request }) => {
  const { id } = request;
  queue = queue.then(() =>
    Effect.runPromise(frameAll(request)).then(
      (frames) => self.postMessage({ id, kind: "frames", frames }, [frames.pixels.buffer]),
      (error) => self.postMessage({ id, kind: "failure", reason: String(error) }, []),
    )
  );
};
