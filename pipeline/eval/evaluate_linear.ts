/** Linear classification of images by frozen features. */
import { Effect, Stream } from "effect";
import type { ClassFolders, ClassifiedFile } from "../../data/datasets/class_folders.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import { leftOut } from "../run/bad_images.ts";
import type { NamedDescriptor } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import {
  type ClassificationScore,
  classificationScore,
  type ClassifiedPicture,
  type UsedImages,
} from "./classification.ts";
import { describedBatches } from "./described.ts";
import type { ClassificationError } from "./evaluate_knn.ts";
import { linearProbe, type ProbeOptions } from "./linear_probe.ts";

/** What to evaluate, and on what. */
export interface LinearOptions {
  /** The images and their classes. */
  readonly folders: ClassFolders;
  /** Descriptors of whole images; the first is the one in question. */
  readonly descriptors: readonly NamedDescriptor[];
  /** How to train. */
  readonly training: Omit<ProbeOptions, "classes" | "stage">;
  /** How to make squares of images. */
  readonly frame: Frame;
  /** Images at a time. */
  readonly batch: number;
  /** The share of the images of each split that may be unreadable; they are left out. */
  readonly maxBadImages: number;
}

/** The evaluation of descriptors by linear classification. */
export interface LinearEvaluation {
  /** The images that it has used. */
  readonly used: UsedImages;
  /** The score of each descriptor, and the last loss of its classifier. */
  readonly results: readonly (ClassificationScore & { readonly method: string; readonly loss: number })[];
  /** The images of `val` as the first descriptor's classifier classifies them. */
  readonly pictures: readonly ClassifiedPicture[];
}

/**
 * Trains a classifier for each descriptor on the features of `train` (without augmentation), which are kept in memory,
 * 4 bytes a channel, and classifies the images of `val`.
 */
export const evaluateLinear: (
  options: LinearOptions,
) => Effect.Effect<LinearEvaluation, ClassificationError, Gpu> = Effect.fn("evaluateLinear")(
  function* (options) {
    const { folders: { classes, ...splits }, descriptors, training, frame, batch, maxBadImages } = options;
    const describe = Effect.fnUntraced(function* (name: "train" | "val") {
      const split = splits[name], paths = split.map(({ file }) => file);
      const bad = leftOut(paths, maxBadImages);
      const files: ClassifiedFile[] = []; // as far as they can be decoded
      const features: Float32Array[][] = descriptors.map(() => []);
      yield* describedBatches(
        paths,
        descriptors.map(({ descriptor }) => descriptor),
        {
          stage: `describing ${name}`,
          ...{ batch, frame, bad },
        },
      ).pipe(Stream.runForEach((described) =>
        Effect.sync(() => {
          files.push(...described.places.map((place) => split[place]));
          described.features.forEach((rows, d) => {
            const { channels } = descriptors[d].descriptor;
            for (let at = 0; at < rows.length; at += channels) {
              features[d].push(rows.slice(at, at + channels));
            }
          });
        })
      ));
      return { files, features, reasons: bad.reasons() };
    });
    const train = yield* describe("train");
    const val = yield* describe("val");

    const labels = train.files.map(({ label }) => label);
    const results: LinearEvaluation["results"][number][] = [];
    const pictures: ClassifiedPicture[] = [];
    for (const [d, { method }] of descriptors.entries()) {
      const { ranked, loss } = yield* linearProbe({ features: train.features[d], labels }, val.features[d], {
        ...training,
        classes: classes.length,
        stage: `training on ${method}`,
      });
      results.push({ method, ...classificationScore(ranked, val.files), loss: loss ?? NaN });
      if (d === 0) ranked.forEach((votes, i) => pictures.push({ ...val.files[i], ranked: votes }));
    }
    const used = {
      ...{ train: train.files.length, val: val.files.length },
      leftOut: [...train.reasons, ...val.reasons],
    };
    return { used, results, pictures } satisfies LinearEvaluation as LinearEvaluation;
  },
);
