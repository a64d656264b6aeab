/** The collectives of the ranks (processes) that run the same program on their own data, as a service for the host. */
import { Context, Effect, Schema } from "effect";

/** An exchange between ranks failed: what was being done, and what the messaging library says. */
export class CollectiveError extends Schema.TaggedError<CollectiveError>()("CollectiveError", {
  rank: Schema.Int,
  during: Schema.String,
  reason: Schema.String,
}) {
  override get message() {
    return `Rank ${this.rank} cannot ${this.during}: ${this.reason}`;
  }
}

/**
 * All ranks call the same functions in the same order, with as many values each. Calls may be made before earlier ones
 * have come back: they take their turn.
 */
export interface CollectiveShape {
  readonly rank: number;
  readonly world: number;
  /** Sums over ranks, element by element; all ranks get the same bits. */
  readonly allReduceSum: (own: Float32Array) => Effect.Effect<Float32Array, CollectiveError>;
  /** What all ranks have, one after the other: [world · length]. */
  readonly allGather: (own: Float32Array) => Effect.Effect<Float32Array, CollectiveError>;
  /** What rank 0 has; the others give as many bytes of whatever content. */
  readonly broadcast: (bytes: Uint8Array) => Effect.Effect<Uint8Array, CollectiveError>;
  /** Waits until all ranks have come this far. */
  readonly barrier: Effect.Effect<void, CollectiveError>;
}

/** One process: everything is its own already. */
const single: CollectiveShape = {
  rank: 0,
  world: 1,
  allReduceSum: Effect.succeed,
  allGather: Effect.succeed,
  broadcast: Effect.succeed,
  barrier: Effect.void,
};

/** The ranks that this process is one of; alone, unless a layer says otherwise. */
export const Collective = Context.Reference<CollectiveShape>("slotcon/Collective", {
  defaultValue: () => single,
});

/** The texts of all ranks, in their order. */
export const gatherTexts = Effect.fnUntraced(function* (own: string) {
  const { allGather, world } = yield* Collective;
  const bytes = new TextEncoder().encode(own);
  const lengths = yield* allGather(Float32Array.of(bytes.length));
  const longest = Math.ceil(Math.max(...lengths) / 4);
  const padded = new Uint8Array(4 * longest);
  padded.set(bytes);
  const all = yield* allGather(new Float32Array(padded.buffer)); // bits are handed on as they are
  return Array.from({ length: world }, (_, rank) =>
    new TextDecoder().decode(
      new Uint8Array(all.buffer, all.byteOffset + 4 * longest * rank, lengths[rank]),
    ));
});
