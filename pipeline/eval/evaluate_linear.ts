/** Linear classification of images by frozen features. */
import { Effect, Stream } from "effect";
import type { ClassFolders, ClassifiedFile } from "../../data/datasets/class_folders.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import type { NamedDescriptor } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { type ClassificationScore, classificationScore, type ClassifiedPicture } from "./classification.ts";
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
}

/** The evaluation of descriptors by linear classification. */
export interface LinearEvaluation {
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
    const { folders: { classes, train, val }, descriptors, training, frame, batch } = options;
    const describe = Effect.fnUntraced(function* (split: readonly ClassifiedFile[], name: string) {
      const features: Float32Array[][] = descriptors.map(() => []);
      yield* describedBatches(
        split.map(({ file }) => file),
        descriptors.map(({ descriptor }) => descriptor),
        {
          stage: `describing ${name}`,
          ...{ batch, frame },
        },
      ).pipe(Stream.runForEach((described) =>
        Effect.sync(() =>
          described.features.forEach((rows, d) => {
            const { channels } = descriptors[d].descriptor;
            for (let at = 0; at < rows.length; at += channels) {
              features[d].push(rows.slice(at, at + channels));
            }
          })
        )
      ));
      return features;
    });
    const known = yield* describe(train, "train");
    const asked = yield* describe(val, "val");

    const labels = train.map(({ label }) => label);
    const results: LinearEvaluation["results"][number][] = [];
    const pictures: ClassifiedPicture[] = [];
    for (const [d, { method }] of descriptors.entries()) {
      const { ranked, loss } = yield* linearProbe({ features: known[d], labels }, asked[d], {
        ...training,
        classes: classes.length,
        stage: `training on ${method}`,
      });
      results.push({ method, ...classificationScore(ranked, val), loss: loss ?? NaN });
      if (d === 0) ranked.forEach((votes, i) => pictures.push({ ...val[i], ranked: votes }));
    }
    return { results, pictures } satisfies LinearEvaluation as LinearEvaluation;
  },
);
