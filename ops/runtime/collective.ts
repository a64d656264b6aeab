/** The collectives of the ranks (processes) that run the same program on their own data, as a service of the host. */
import { Context, Data, Effect } from "effect";

/** Ranks cannot exchange data. */
export class CollectiveError extends Data.Error<{
  readonly rank: number;
  /** What could not be done: completes "Rank 0 cannot …". */
  readonly subject: string;
  /** Why not, as the messaging library says it. */
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "CollectiveError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** Subject and reason as a sentence. */
  override get message(): string {
    return `Rank ${this.rank} cannot ${this.subject}: ${this.reason}`;
  }
}

/**
 * Collective operations. All ranks have to call the same functions in the same order, with as many values each. Calls
 * made before earlier ones have finished are queued. All fail with CollectiveError.
 */
export interface Collective {
  /** The number of this rank, below `world`. */
  readonly rank: number;
  /** How many ranks there are. */
  readonly world: number;
  /** Element-wise sums over the ranks; all ranks get the same bits. */
  readonly allReduceSum: (own: Float32Array) => Effect.Effect<Float32Array, CollectiveError>;
  /** The values of all ranks, in the order of ranks: [world · length]. */
  readonly allGather: (own: Float32Array) => Effect.Effect<Float32Array, CollectiveError>;
  /** The bytes of rank 0; the other ranks pass as many, of any value. */
  readonly broadcast: (bytes: Uint8Array) => Effect.Effect<Uint8Array, CollectiveError>;
  /** Waits until all ranks have called it. */
  readonly barrier: Effect.Effect<void, CollectiveError>;
}

/** A single process: the results are its own values. */
const single: Collective = {
  rank: 0,
  world: 1,
  allReduceSum: Effect.succeed,
  allGather: Effect.succeed,
  broadcast: Effect.succeed,
  barrier: Effect.void,
};

/** The ranks that this process is one of; a single process unless a layer provides others. */
export const Collective: Context.Reference<Collective> = Context.Reference<Collective>(
  "slotcon/Collective",
  { defaultValue: () => single },
);

/** The texts of all ranks, in the order of ranks. Fails with CollectiveError. */
export const gatherTexts: (own: string) => Effect.Effect<string[], CollectiveError> = Effect.fnUntraced(
  function* (own) {
    const { allGather, world } = yield* Collective;
    const bytes = new TextEncoder().encode(own);
    const lengths = yield* allGather(Float32Array.of(bytes.length));
    const longest = Math.ceil(Math.max(...lengths) / 4);
    const padded = new Uint8Array(4 * longest);
    padded.set(bytes);
    const all = yield* allGather(new Float32Array(padded.buffer)); // copied bit by bit, whatever floats they make
    return Array.from(
      { length: world },
      (_, rank) =>
        new TextDecoder().decode(
          new Uint8Array(all.buffer, all.byteOffset + 4 * longest * rank, lengths[rank]),
        ),
    );
  },
);
