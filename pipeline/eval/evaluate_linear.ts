/** Linear classification of pictures by frozen features. */
import { Effect, Stream } from "effect";
import type { ClassFolders, ClassifiedFile } from "../../data/datasets/class_folders.ts";
import type { NamedDescriptor } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { type ClassificationScore, classificationScore, type ClassifiedPicture } from "./classification.ts";
import { describedBatches } from "./described.ts";
import type { TrainingOptions } from "./linear_classifier.ts";
import { linearProbe } from "./linear_probe.ts";

export interface LinearOptions {
  readonly folders: ClassFolders;
  readonly descriptors: readonly NamedDescriptor[]; // the first is the one in question
  readonly training: TrainingOptions & {
    readonly epochs: number;
    readonly batchSize: number;
    readonly seed: number;
  };
  readonly frame: Frame;
  readonly batch: number; // pictures at a time
}

export interface LinearEvaluation {
  readonly results: readonly (ClassificationScore & { readonly method: string; readonly loss: number })[];
  readonly pictures: readonly ClassifiedPicture[]; // by the first descriptor
}

/**
 * Trains a classifier for each descriptor on the features of `train` (without augmentation), which are held in memory, 4
 * bytes a channel, and classifies the pictures of `val`.
 */
export const evaluateLinear = Effect.fn("evaluateLinear")(function* (options: LinearOptions) {
  const { folders: { classes, train, val }, descriptors, training, frame, batch } = options;
  const describe = Effect.fnUntraced(function* (split: readonly ClassifiedFile[], name: string) {
    const features: Float32Array[][] = descriptors.map(() => []);
    yield* describedBatches(split.map(({ file }) => file), descriptors.map(({ descriptor }) => descriptor), {
      stage: `describing ${name}`,
      ...{ batch, frame },
    }).pipe(Stream.runForEach((described) =>
      Effect.sync(() =>
        described.features.forEach((rows, d) => {
          const { channels } = descriptors[d].descriptor;
          for (let at = 0; at < rows.length; at += channels) features[d].push(rows.slice(at, at + channels));
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
});
