/** Weighted k-nearest-neighbour classification of pictures by frozen features. */
import { Effect, Stream } from "effect";
import type { ClassFolders } from "../../data/datasets/class_folders.ts";
import type { NamedDescriptor } from "../inference/descriptors.ts";
import type { Frame } from "../inference/framed.ts";
import { type ClassificationScore, classificationScore, type ClassifiedPicture } from "./classification.ts";
import { describedBatches } from "./described.ts";
import { neighbourBank, type Neighbours, vote } from "./nearest_neighbours.ts";

export interface KnnOptions {
  readonly folders: ClassFolders;
  readonly descriptors: readonly NamedDescriptor[]; // the first is the one in question
  readonly neighbours: readonly number[]; // values of k
  readonly temperature: number;
  readonly frame: Frame;
  readonly batch: number; // pictures at a time
}

export interface KnnEvaluation {
  readonly results: readonly (ClassificationScore & { readonly method: string; readonly k: number })[];
  /** By the first descriptor and the first k, with the training pictures that are nearest. */
  readonly pictures: readonly (ClassifiedPicture & { readonly nearest: readonly string[] })[];
}

const NEAREST = 4;

/** Classifies the pictures of `val` by those of `train`, whose features pass by and are not kept. */
export const evaluateKnn = Effect.fn("evaluateKnn")(function* (options: KnnOptions) {
  const { folders: { train, val }, descriptors, neighbours, temperature, frame, batch } = options;
  const all = descriptors.map(({ descriptor }) => descriptor);
  const most = Math.min(Math.max(...neighbours, NEAREST), train.length);

  const queries = all.map(({ channels }) => new Float32Array(val.length * channels));
  const files = (split: typeof train) => split.map(({ file }) => file);
  yield* describedBatches(files(val), all, { stage: "describing val", batch, frame }).pipe(
    Stream.runForEach(({ first, features }) =>
      Effect.sync(() => features.forEach((rows, d) => queries[d].set(rows, first * all[d].channels)))
    ),
  );
  const banks = yield* Effect.forEach(
    all,
    ({ channels }, d) => neighbourBank(queries[d], { channels, most, bankSize: train.length }),
  );
  yield* describedBatches(files(train), all, { stage: "comparing train", batch, frame }).pipe(
    Stream.runForEach(({ features }) =>
      Effect.forEach(banks, ({ add }, d) => add(features[d]), { discard: true })
    ),
  );

  const labels = train.map(({ label }) => label);
  const results: KnnEvaluation["results"][number][] = [];
  let nearest: readonly Neighbours[] = [];
  for (const [d, { found }] of banks.entries()) {
    const own = yield* found;
    if (d === 0) nearest = own;
    for (const k of neighbours) {
      const ranked = own.map((each) => vote(each, labels, { k, temperature }));
      results.push({ method: descriptors[d].method, k, ...classificationScore(ranked, val) });
    }
  }
  return {
    results,
    pictures: val.map(({ file, label }, i) => ({
      file,
      label,
      ranked: vote(nearest[i], labels, { k: neighbours[0], temperature }).slice(0, 5),
      nearest: Array.from(nearest[i].places.subarray(0, NEAREST), (place) => train[place].file),
    })),
  } satisfies KnnEvaluation as KnnEvaluation;
}, Effect.scoped);
