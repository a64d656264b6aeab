/** A worker that reads, decodes and resizes whole images. One message asks for an image and one message answers. */
import { answerRequests } from "../../run/worker.ts";
import { Effect } from "effect";
import { type DecodeError, readUpright } from "../../../data/images/decode_image.ts";
import type { LabelError } from "../../../data/datasets/coco_annotations.ts";
import { release } from "../../../data/images/release.ts";
import { resizeBilinear, type Size } from "../../../data/images/resize.ts";
import type { SegmentationConfig } from "./config.ts";
import { resizedSize } from "./draws.ts";
import { packImage } from "./pack.ts";
import { readSample, type RequestedSample } from "./samples.ts";

/** An image to read. */
export interface WholeImageRequest {
  /** The number of the request, for the reply. */
  readonly id: number;
  /** The image and its labels, null where they are not wanted. */
  readonly sample: RequestedSample | { readonly image: string; readonly labels: null };
  /** The size that it is resized to. */
  readonly resize: Pick<SegmentationConfig, "longSide" | "shortSide">;
}

/** A resized image and its labels. */
export interface ResizedImage {
  /** A word r | g << 8 | b << 16 a pixel, [height, width]. */
  readonly pixels: Uint32Array<ArrayBuffer>;
  /** Rows of the resized image. */
  readonly height: number;
  /** Pixels in a row of it. */
  readonly width: number;
  /** The size of the image in its file, turned upright. */
  readonly original: Size;
  /** Classes, or 255 where ignored, at original size, [H, W]; null where they were not wanted. */
  readonly labels: Uint8Array<ArrayBuffer> | null;
}

/** An image, or why it cannot be read, or why the worker failed. */
export type WholeImageReply =
  | { readonly id: number; readonly kind: "image"; readonly image: ResizedImage }
  | { readonly id: number; readonly kind: "bad file"; readonly reason: string }
  | { readonly id: number; readonly kind: "failure"; readonly reason: string };

const load = Effect.fnUntraced(
  function* (
    { id, sample, resize }: WholeImageRequest,
  ): Effect.fn.Return<WholeImageReply, DecodeError | LabelError> {
    const { picture, labels } = sample.labels === null
      ? { picture: yield* readUpright(sample.image), labels: null }
      : yield* readSample(sample);
    const size = resizedSize(picture, resize);
    const resized = resizeBilinear(picture, size);
    const pixels = packImage(resized);
    const original = { width: picture.width, height: picture.height };
    release(picture.rgb, resized.rgb);
    return { id, kind: "image", image: { ...size, pixels, original, labels } };
  },
);

answerRequests(
  (request: WholeImageRequest) =>
    Effect.catch(
      load(request),
      ({ message }) => Effect.succeed<WholeImageReply>({ id: request.id, kind: "bad file", reason: message }),
    ),
  (reply) =>
    reply.kind === "image" ? [reply.image.pixels, reply.image.labels].filter((array) => array !== null) : [],
);
