/** Labels of images as squares. */
import { Effect } from "effect";
import { LabelError } from "../../data/datasets/coco_annotations.ts";
import type { LabelledFile, LabelMap } from "../../data/datasets/coco_labels.ts";
import { type Frame, placed } from "../inference/framed.ts";
import type { Overlap } from "./grouping.ts";

/** The labels of an image's square. */
export interface FramedLabels {
  /** Classes, [S, S]. */
  readonly labels: Uint16Array;
  /** Objects, [S, S]; null where they are not known. */
  readonly objects: Uint16Array | null;
}

/** Labels resized and cropped as `framed` does their image: every pixel has the label of the nearest one. */
export const framedLabels = ({ width, height, labels, objects }: LabelMap, frame: Frame): FramedLabels => {
  const S = frame.crop;
  const { size, left, top } = placed({ width, height }, frame);
  const nearest = (at: number, resized: number, original: number) =>
    Math.min(original - 1, Math.max(0, Math.floor((at + 0.5) * original / resized)));
  const columns = Int32Array.from({ length: S }, (_, x) => nearest(left + x, size.width, width));
  const places = new Int32Array(S * S);
  for (let y = 0; y < S; y++) {
    const row = width * nearest(top + y, size.height, height);
    for (let x = 0; x < S; x++) places[y * S + x] = row + columns[x];
  }
  const taken = (map: Uint16Array) => Uint16Array.from(places, (place) => map[place]);
  return { labels: taken(labels), objects: objects === null ? null : taken(objects) };
};

/**
 * The labels of images in one frame, read one after the other, since those of a large image take much memory. `sizes`
 * are the widths and heights of the images, [N, 2]. Fails with a `LabelError` where labels have another size.
 */
export const readFramedLabels = (
  labelled: readonly LabelledFile[],
  sizes: Uint32Array,
  frame: Frame,
): Effect.Effect<readonly FramedLabels[], LabelError> =>
  Effect.forEach(labelled, ({ read }, i) =>
    Effect.map(
      read({ width: sizes[2 * i], height: sizes[2 * i + 1] }),
      (map) => framedLabels(map, frame),
    ));

/** Fails with a `LabelError` where no pixel has a known class, since there is nothing to score. */
export const expectLabelled = (
  labelled: readonly LabelledFile[],
  overlap: Overlap,
): Effect.Effect<void, LabelError> => {
  if (overlap.some((row) => row.some((pixels) => pixels > 0))) return Effect.void;
  const reason =
    `no pixel of its ${labelled.length} pictures is of a known class, so there is nothing to score`;
  return Effect.fail(new LabelError({ subject: labelled[0].from, reason }));
};
