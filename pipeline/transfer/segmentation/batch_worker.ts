/**
 * A worker that makes whole batches: it reads and decodes images and their labels, augments them and packs them for the
 * device. One message asks for a batch and one message answers. A batch depends on its request alone.
 */
import { answerRequests } from "../../run/worker.ts";
import { Effect, Result } from "effect";
import { release } from "../../../data/images/release.ts";
import { randomStream } from "../../../data/random/random.ts";
import type { BadFile, BatchReply } from "../../run/batches.ts";
import { augmented, drawAugmentation } from "./augment.ts";
import type { AugmentationOptions } from "./draws.ts";
import { type PackedBatch, packLabelled } from "./pack.ts";
import { readSample, type RequestedSample } from "./samples.ts";

/** What to put into a batch. */
export interface BatchRequest {
  /** The number of the request, for the reply. */
  readonly id: number;
  /** Its images and labels. */
  readonly samples: readonly RequestedSample[];
  /** Seed, step and place in the global batch of each sample. */
  readonly keys: readonly (readonly [seed: number, step: number, place: number])[];
  /** How to augment. */
  readonly augmentation: AugmentationOptions;
  /** Which channels to drop before classifiers; null for none. */
  readonly dropout: {
    /** The probability that a channel is dropped. */
    readonly probability: number;
    /** The channels of the head. */
    readonly headChannels: number;
    /** The channels of the auxiliary head; 0 where there is none. */
    readonly auxiliaryChannels: number;
  } | null;
}

/** Images in work at a time: while one is decoded, another is resized. */
const AT_ONCE = 2;

/** The words of random keys that tell the draws of crops, and of dropped channels, from the others of a seed. */
const AUGMENTATION = 10, DROPOUT = 11;

const makeBatch = Effect.fnUntraced(function* ({ id, samples, keys, augmentation, dropout }: BatchRequest) {
  const begin = now();
  const side = augmentation.cropSize;
  const pixels = new Uint32Array(samples.length * side * side);
  const sizes = new Uint32Array(2 * samples.length);
  const bad: BadFile[] = [];
  let decoding = 0;
  yield* Effect.forEach(samples, (sample, place) =>
    Effect.gen(function* () {
      const read = yield* Effect.result(readSample(sample));
      if (Result.isFailure(read)) return void bad.push({ place, reason: read.failure.message });
      const from = now();
      const { picture, labels } = read.success;
      const [seed, step, index] = keys[place];
      const random = randomStream(seed, AUGMENTATION, step, index);
      const crop = augmented(read.success, drawAugmentation(random, read.success, augmentation));
      release(picture.rgb, labels);
      packLabelled(crop, pixels.subarray(place * side * side, (place + 1) * side * side), side);
      sizes.set([crop.picture.height, crop.picture.width], 2 * place);
      release(crop.picture.rgb, crop.labels);
      decoding += now() - from;
    }), { concurrency: AT_ONCE });
  if (bad.length > 0) return { id, kind: "bad files", bad } as const;
  const packed = now();
  const times = { begin, decoded: packed - decoding, packed };
  return { id, kind: "batch", batch: { pixels, sizes, ...dropped(keys, dropout) }, times } as const;
});

/** Milliseconds since 1970, at a finer resolution than `Date.now()`. */
const now = () => performance.timeOrigin + performance.now();

/** What the channels before each classifier are multiplied by. */
const dropped = (
  keys: BatchRequest["keys"],
  dropout: BatchRequest["dropout"],
): Pick<PackedBatch, "keptHead" | "keptAuxiliary"> => {
  if (dropout === null) return {};
  const { probability, headChannels, auxiliaryChannels } = dropout;
  const factors = (channels: number, head: number) => {
    const kept = new Float32Array(keys.length * channels);
    keys.forEach(([seed, step, place], i) => {
      const random = randomStream(seed, DROPOUT, step, place, head);
      for (let c = 0; c < channels; c++) {
        kept[i * channels + c] = random.uniform() < probability ? 0 : 1 / (1 - probability);
      }
    });
    return kept;
  };
  const keptHead = factors(headChannels, 0);
  return auxiliaryChannels === 0 ? { keptHead } : { keptHead, keptAuxiliary: factors(auxiliaryChannels, 1) };
};

answerRequests<BatchRequest, BatchReply<PackedBatch>>(
  makeBatch,
  (reply) => reply.kind === "batch" ? Object.values(reply.batch) : [],
);
