/** Some images of a run as rows: as they are, with the truth, and with what is predicted for them. */
import { join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import type { SegmentationClass } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { writeWholeFile } from "../../../data/files/write_whole_file.ts";
import type { EncodedPicture } from "../../../data/formats/tfevents.ts";
import { readUpright } from "../../../data/images/decode_image.ts";
import type { Picture } from "../../../data/images/picture.ts";
import { tinted } from "../../visualize/tinted.ts";

/** An image with its classes, [H, W] each; 255 is ignored. */
export interface PredictedImage {
  /** The image's file. */
  readonly file: string;
  /** The truth. */
  readonly labels: Uint8Array;
  /** What is predicted. */
  readonly predictions: Uint8Array;
}

/** The images of one validation, as they come. */
export interface DrawnPredictions {
  /** Adds an image to the rows; one that cannot be read is left out. */
  readonly add: (image: PredictedImage) => Effect.Effect<void>;
  /** Writes the rows, and gives that of the predictions under the name "predictions". */
  readonly finished: Effect.Effect<ReadonlyMap<string, EncodedPicture>>;
}

/** Height of a row, and the widest image in it, in pixels. */
const ROW = { height: 160, width: 480 };

/**
 * Draws into `folder`: `pictures.jpg` is a row of images, `truth.jpg` the same in the colours of their classes, and
 * `step_000123.jpg` in those of the predicted classes after so many steps. Ignored pixels are white. A file that cannot be
 * written costs a warning.
 */
export const drawPredictions = (
  folder: string,
  classes: readonly SegmentationClass[],
): (done: number) => Effect.Effect<DrawnPredictions> => {
  const colors = Array.from({ length: 256 }, (_, c) => classes[c]?.color ?? [255, 255, 255] as const);
  let isFirst = true;
  return (done) =>
    Effect.sync(() => {
      const rows = { pictures: [] as Picture[], truth: [] as Picture[], predicted: [] as Picture[] };
      return {
        add: ({ file, labels, predictions }) =>
          readUpright(file).pipe(
            Effect.flatMap((picture) =>
              Effect.promise(async () => {
                rows.pictures.push(await inRow(picture));
                rows.truth.push(await inRow(tinted(picture, labels, colors)));
                rows.predicted.push(await inRow(tinted(picture, predictions, colors)));
              })
            ),
            Effect.ignore,
          ),
        finished: Effect.gen(function* () {
          if (rows.pictures.length === 0) return new Map();
          const [pictures, truth, predicted] = yield* Effect.promise(() =>
            Promise.all([rows.pictures, rows.truth, rows.predicted].map(joined))
          );
          if (isFirst) {
            yield* write(folder, "pictures.jpg", pictures.file);
            yield* write(folder, "truth.jpg", truth.file);
          }
          isFirst = false;
          yield* write(folder, `step_${String(done).padStart(6, "0")}.jpg`, predicted.file);
          return new Map([["predictions", predicted]]);
        }),
      } satisfies DrawnPredictions as DrawnPredictions;
    });
};

const write = (folder: string, name: string, file: Uint8Array) =>
  Effect.tryPromise({
    try: () => Deno.mkdir(folder, { recursive: true }),
    catch: (error) => error as Error,
  }).pipe(
    Effect.andThen(writeWholeFile(join(folder, name), [file as Uint8Array<ArrayBuffer>])),
    Effect.catch(({ message }) => Effect.logWarning(`Cannot write "${join(folder, name)}": ${message}`)),
  );

/** An image scaled into a row. */
const inRow = async ({ width, height, rgb }: Picture): Promise<Picture> => {
  const scale = Math.min(ROW.height / height, ROW.width / width);
  const size = {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
  };
  const scaled = await sharp(rgb, { raw: { width, height, channels: 3 } })
    .resize({ ...size, fit: "fill" }).raw().toBuffer();
  return { ...size, rgb: new Uint8Array(scaled) };
};

/** Images side by side on white, as JPEG. */
const joined = async (row: readonly Picture[]): Promise<EncodedPicture> => {
  const width = row.reduce((sum, picture) => sum + picture.width, 0);
  const size = { width, height: ROW.height };
  const data = new Uint8Array(3 * width * ROW.height).fill(255);
  let left = 0;
  for (const { width: own, height, rgb } of row) {
    for (let y = 0; y < height; y++) {
      data.set(rgb.subarray(3 * y * own, 3 * (y + 1) * own), 3 * (y * width + left));
    }
    left += own;
  }
  const file = await sharp(data, { raw: { ...size, channels: 3 } })
    .jpeg({ quality: 85, chromaSubsampling: "4:4:4" }).toBuffer();
  return { ...size, file };
};
