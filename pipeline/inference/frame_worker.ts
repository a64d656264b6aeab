/**
 * A worker that reads, decodes, resizes and crops whole images. It is a thread of its own because the main thread
 * blocks whenever it waits for the GPU. One message asks for a batch and one message answers.
 */
import { Effect, Result } from "effect";
import { readPicture } from "../../data/images/decode_image.ts";
import { release } from "../../data/images/release.ts";
import { type Frame, framed } from "./framed.ts";
import { pack } from "./packed_pictures.ts";

/** The images of a batch. */
export interface FrameRequest {
  /** The number of the request, for the reply. */
  readonly id: number;
  /** The files of the images. */
  readonly files: readonly string[];
  /** The size and crop of each. */
  readonly frame: Frame;
}

/** A batch, or why the worker failed. */
export type FrameReply =
  | { readonly id: number; readonly kind: "frames"; readonly frames: Frames }
  | { readonly id: number; readonly kind: "failure"; readonly reason: string };

/** A batch of N images of side S. */
export interface Frames {
  /** [N, S, S], a word r | g << 8 | b << 16 a pixel; zeros for images that cannot be decoded. */
  readonly pixels: Uint32Array<ArrayBuffer>;
  /** Width and height of each image in its file, [N, 2]. */
  readonly sizes: Uint32Array<ArrayBuffer>;
  /** Why an image cannot be decoded, a sentence that names the file; null for one that can be. */
  readonly problems: readonly (string | null)[];
}

/** Images in work at a time: while one is decoded, the file of the next is read. */
const AT_ONCE = 2;

const frameAll = Effect.fnUntraced(function* ({ files, frame }: FrameRequest) {
  const words = frame.crop ** 2;
  const pixels = new Uint32Array(files.length * words);
  const sizes = new Uint32Array(files.length * 2);
  const problems = yield* Effect.forEach(files, (file, i) =>
    readPicture(file).pipe(
      Effect.map((image) => {
        pack(framed(image, frame), pixels.subarray(i * words, (i + 1) * words));
        sizes.set([image.width, image.height], 2 * i);
        release(image.rgb);
      }),
      Effect.result,
      Effect.map((result) => Result.isSuccess(result) ? null : result.failure.message),
    ), { concurrency: AT_ONCE });
  return { pixels, sizes, problems } satisfies Frames;
});

/** The worker's end of the channel to the main thread. */
declare const self: {
  onmessage: (message: { readonly data: FrameRequest }) => void;
  postMessage(reply: FrameReply, transfer: readonly ArrayBufferLike[]): void;
};

// One batch after another, however many requests there are: only one batch at a time takes memory.
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
