/** The nearest pictures of every prototype, and how often each is used (docs/method.md, section 11, and section 12, point 20). */
import { Effect, Schema, type Stream } from "effect";
import type { FramedBatch } from "../inference/framed_batches.ts";
import { type PictureOutput, runBatches, type SlotProgram } from "../inference/slot_program.ts";

/** What is added to the mask of the locations that a prototype wins: one that wins nowhere has its plain mean as score. */
const SMOOTHING = 1e-6;

export interface SlotScores {
  /** [K]: mean cosine of each prototype over the locations that it wins. */
  readonly scores: Float64Array;
  /** [K]: how many locations each wins. */
  readonly wins: Uint32Array;
}

/** The cosines of a picture's locations and the prototypes, [P, K], to a score a prototype. */
export const slotScores = (dots: Float32Array, K: number): SlotScores => {
  const P = dots.length / K;
  const all = new Float64Array(K), won = new Float64Array(K), wins = new Uint32Array(K);
  for (let at = 0; at < dots.length; at += K) {
    let winner = 0; // the first of equals
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

export interface Neighbor {
  readonly picture: number; // its place in the list
  readonly score: number;
}

/** Keeps the `count` best pictures of each of K prototypes, best first; of equals the earlier in the list. */
export class NearestPictures {
  readonly #nearest: Neighbor[][];

  constructor(K: number, readonly count: number) {
    this.#nearest = Array.from({ length: K }, () => []);
  }

  /** Takes in the next picture of the list. */
  add(picture: number, scores: Float64Array): void {
    for (const [k, nearest] of this.#nearest.entries()) {
      const score = scores[k];
      if (nearest.length === this.count && !(score > nearest[this.count - 1].score)) continue;
      const place = nearest.findLastIndex((other) => other.score >= score) + 1;
      nearest.splice(place, 0, { picture, score });
      nearest.length = Math.min(nearest.length, this.count);
    }
  }

  get all(): readonly (readonly Neighbor[])[] {
    return this.#nearest;
  }
}

export interface Retrieval {
  /** Of each prototype, its nearest pictures, best first. */
  readonly nearest: readonly (readonly Neighbor[])[];
  /** How many pictures were looked at. */
  readonly pictures: number;
  /** In how many pictures each prototype wins a location. */
  readonly wonIn: readonly number[];
  /** Of all locations, the share that each prototype wins. */
  readonly shares: readonly number[];
}

/** The weights are not those of a sound run. */
export class NonFiniteScoresError
  extends Schema.TaggedError<NonFiniteScoresError>()("NotFinite", { place: Schema.Int }) {
  override get message() {
    return "The teacher gives values that are no numbers: its weights are damaged, `slotcon inspect` says which";
  }
}

/**
 * Ranks the pictures of a stream of batches for every prototype; `seen` is told of each that could be decoded. Fails with
 * NotFinite, GpuError, and as the batches do.
 */
export const retrieve = Effect.fn("retrieve")(function* <E, R>(
  program: SlotProgram,
  batches: Stream.Stream<FramedBatch, E, R>,
  { topk, seen = () => {} }: {
    readonly topk: number;
    readonly seen?: (picture: PictureOutput, scores: SlotScores) => void;
  },
) {
  const K = program.scores[3];
  const nearest = new NearestPictures(K, topk);
  const wonIn = new Array<number>(K).fill(0), won = new Array<number>(K).fill(0);
  let pictures = 0;
  yield* runBatches(program, batches, (picture) =>
    Effect.suspend(() => {
      const found = slotScores(picture.values, K);
      if (!found.scores.every(Number.isFinite)) {
        return Effect.fail(new NonFiniteScoresError({ place: picture.place }));
      }
      nearest.add(picture.place, found.scores);
      found.wins.forEach((wins, k) => {
        won[k] += wins;
        wonIn[k] += Math.min(wins, 1);
      });
      pictures++;
      seen(picture, found);
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
