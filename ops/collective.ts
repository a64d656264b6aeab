/**
 * What processes (ranks) that run the same program on their own data exchange: a service for the host, and ops for graphs.
 *
 * A program stops at such an op: what it gives is brought to the host, exchanged, and put back on the device. The compiler
 * lets those that are ready together share a stop.
 */
import { Context, Effect, Schema } from "effect";
import { defineOp, type Tensor } from "./tensor.ts";

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

/** How the results of an exchange come about, and when they are needed. */
export interface Exchange {
  readonly kind: "gather" | "sum";
  /** Only what comes last in the program reads the result: its way may take as long as the rest. */
  readonly late: boolean;
}

/** x of all ranks: [...] to [world, ...]. No gradient flows back. */
export const allGather = (x: Tensor, world: number): Tensor => gatherOp([x], { world });

/** Sum of x over ranks, of the same shape. No gradient flows back. `late`: see `Exchange`. */
export const allReduceSum = (x: Tensor, { late = false } = {}): Tensor =>
  (late ? lateSumOp : sumOp)([x], undefined);

const gatherOp = defineOp<{ readonly world: number }>("allGather", {
  shape: ([x], { world }) => [world, ...x.shape],
  exchange: { kind: "gather", late: false },
});

const sumOp = defineOp("allReduceSum", { shape: ([x]) => x.shape, exchange: { kind: "sum", late: false } });
const lateSumOp = defineOp("allReduceSum", {
  shape: ([x]) => x.shape,
  exchange: { kind: "sum", late: true },
});
