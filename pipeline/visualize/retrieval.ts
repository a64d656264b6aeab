/**
 * The nearest images of every prototype, and how often each is used (docs/method.md, section 11, and section 12, point
 * 20).
 */
import { Data, Effect, type Stream } from "effect";
import type { RunError } from "../inference/descriptors.ts";
import type { FramedBatch } from "../inference/framed_batches.ts";
import { type PictureOutput, runBatches, type SlotProgram } from "../inference/slot_program.ts";

/** Added to the weights 0 and 1 of locations: a prototype without a location then has its plain mean as score. */
const SMOOTHING = 1e-6;

/** The scores of the prototypes in one image. */
export interface SlotScores {
  /** The mean cosine of each prototype over its locations, those where it has the highest cosine, [K]. */
  readonly scores: Float64Array;
  /** The number of these locations, [K]. */
  readonly wins: Uint32Array;
}

/** The scores of K prototypes from the cosines of an image's P locations and the prototypes, [P, K]. */
export const slotScores = (dots: Float32Array, K: number): SlotScores => {
  const P = dots.length / K;
  const all = new Float64Array(K), won = new Float64Array(K), wins = new Uint32Array(K);
  for (let at = 0; at < dots.length; at += K) {
    let winner = 0; // the first one where cosines are equal
    for (let k = 0; k < K; k++) {
      all[k] += dots[at + k];
      if (dots[at + k] > dots[at + winner]) winner = k;
    }
    won[winner] += dots[at + winner];
    wins[winner]++;
  }
  const scores = all.map((sum, k) => (won[k] + SMOOTHING * sum) / (wins[k] + SMOOTHING * P));
  return { scores, wins };
};

/** An image near a prototype. */
export interface Neighbor {
  /** The index of the image. */
  readonly picture: number;
  /** The prototype's score in it. */
  readonly score: number;
}

/**
 * The `count` images with the highest scores of each of K prototypes, best first; equal scores in the order of the
 * list.
 */
export class NearestPictures {
  readonly #nearest: Neighbor[][];

  /** Without any image so far. */
  constructor(K: number, readonly count: number) {
    this.#nearest = Array.from({ length: K }, () => []);
  }

  /** Adds the next image of the list, with its scores [K]. */
  add(picture: number, scores: Float64Array): void {
    for (const [k, nearest] of this.#nearest.entries()) {
      const score = scores[k];
      if (nearest.length === this.count && !(score > nearest[this.count - 1].score)) continue;
      const place = nearest.findLastIndex((other) => other.score >= score) + 1;
      nearest.splice(place, 0, { picture, score });
      nearest.length = Math.min(nearest.length, this.count);
    }
  }

  /** The nearest images of each prototype. */
  get all(): readonly (readonly Neighbor[])[] {
    return this.#nearest;
  }
}

/** The images of a list, ranked for every prototype. */
export interface Retrieval {
  /** The nearest images of each prototype, best first. */
  readonly nearest: readonly (readonly Neighbor[])[];
  /** The number of images that could be decoded. */
  readonly pictures: number;
  /** The number of images in which each prototype has the highest cosine at some location. */
  readonly wonIn: readonly number[];
  /** The share of all locations at which each prototype has the highest cosine: 0 … 1. */
  readonly shares: readonly number[];
}

/** A teacher's scores are not finite: its weights are damaged. */
export class NonFiniteScoresError extends Data.Error<{ readonly place: number }> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "NonFiniteScoresError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return "The teacher gives values that are no numbers: its weights are damaged, `slotcon inspect` says which";
  }
}

/** What to retrieve. */
export interface RetrievalOptions {
  /** Images for each prototype. */
  readonly topk: number;
  /** Called for each image that could be decoded. */
  readonly seen?: (image: PictureOutput, scores: SlotScores) => void;
}

/**
 * Ranks the images of a stream of batches for every prototype. Fails with a NonFiniteScoresError, as running the
 * program does, and as the batches do.
 */
export const retrieve: <E, R>(
  program: SlotProgram,
  batches: Stream.Stream<FramedBatch, E, R>,
  options: RetrievalOptions,
) => Effect.Effect<Retrieval, E | NonFiniteScoresError | RunError, R> = Effect.fn("retrieve")(function* (
  program,
  batches,
  { topk, seen = () => {} },
) {
  const K = program.scores[3];
  const nearest = new NearestPictures(K, topk);
  const wonIn = new Array<number>(K).fill(0), won = new Array<number>(K).fill(0);
  let pictures = 0;
  yield* runBatches(program, batches, (image) =>
    Effect.suspend(() => {
      const found = slotScores(image.values, K);
      if (!found.scores.every(Number.isFinite)) {
        return Effect.fail(new NonFiniteScoresError({ place: image.place }));
      }
      nearest.add(image.place, found.scores);
      found.wins.forEach((wins, k) => {
        won[k] += wins;
        wonIn[k] += Math.min(wins, 1);
      });
      pictures++;
      seen(image, found);
      return Effect.void;
    }));
  const locations = pictures * program.scores[1] * program.scores[2];
  return {
    nearest: nearest.all,
    pictures,
    wonIn,
    shares: won.map((wins) => wins / Math.max(locations, 1)),
  } satisfies Retrieval as Retrieval;
});
