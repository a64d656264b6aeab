/**
 * Keeping the ranks of a run in step: the same beginning, the same end, and the same bits in between. With one rank all of
 * this costs nothing.
 */
import { Data, Effect, type Scope } from "effect";
import { checksum } from "../../ops/checksum.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import { Collective, type CollectiveError, gatherTexts } from "../../ops/runtime/collective.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile, type DeviceState } from "../../ops/runtime/program.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import { initialState, isInitial } from "./initial_state.ts";
import type { StartingPoint } from "./resume.ts";
import { checkpointShapes, type StateTensor } from "./state_layout.ts";

/** A replica differs from rank 0: which one, and in what. */
export class RanksDifferError extends Data.Error<{
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "RanksDifferError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return this.reason;
  }
}

/**
 * The starting point that rank 0 finds, on all ranks, which need not be able to read its checkpoint. Initial values of the
 * seed are not sent; every rank draws them. What a task's starting point has besides must be JSON, and only rank 0 keeps
 * the notes. Fails as `find` does, or with a `CollectiveError`.
 */
export const broadcastStart = Effect.fnUntraced(function* <Start extends StartingPoint, E, R>(
  find: Effect.Effect<Start, E, R>,
  state: StateBuilder,
  seed: number,
): Effect.fn.Return<Start, E | CollectiveError, R> {
  const { rank, world, broadcast } = yield* Collective;
  if (world === 1) return yield* find;
  const found = rank === 0 ? yield* find : null;
  const [counters] = yield* gatherTexts(JSON.stringify({ ...found, values: undefined, notes: undefined }));
  const shapes = [...checkpointShapes(state)];
  const initial = yield* broadcast(
    Uint8Array.from(shapes, ([name]) => isInitial(found?.values.get(name)) ? 1 : 0),
  );
  const values = new Map<string, StateTensor>(initialState(state, seed));
  for (const [i, [name, shape]] of shapes.entries()) {
    if (initial[i] === 1) continue;
    const own = found?.values.get(name)?.data ?? new Float32Array(sizeOf(shape));
    const bytes = yield* broadcast(new Uint8Array(own.buffer, own.byteOffset, own.byteLength));
    values.set(name, { shape, data: new Float32Array(bytes.buffer, bytes.byteOffset, own.length) });
  }
  return { ...JSON.parse(counters), values, notes: found?.notes ?? [] };
});

/** Has any rank been told to stop? Then all stop, after the same step. Fails with a `CollectiveError`. */
export const anyRankStops = Effect.fnUntraced(function* (
  told: boolean,
): Effect.fn.Return<boolean, CollectiveError> {
  const { allReduceSum } = yield* Collective;
  const [count] = yield* allReduceSum(Float32Array.of(told ? 1 : 0));
  return count > 0;
});

/** Another rank has ended the run: which one, and with what sentence. */
export class OtherRankError extends Data.Error<{
  readonly rank: number;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "OtherRankError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Rank ${this.rank} has ended the run: ${this.reason}`;
  }
}

/**
 * Compares how the ranks end, in a sentence or "" where all is well. Fails with an `OtherRankError` on the ranks that
 * are well while another is not, or with a `CollectiveError`.
 */
export const expectSameEnd = Effect.fnUntraced(function* (
  reason: string,
): Effect.fn.Return<void, OtherRankError | CollectiveError> {
  const { world } = yield* Collective;
  if (world === 1) return;
  const reasons = yield* gatherTexts(reason);
  const rank = reasons.findIndex((text) => text !== "");
  if (reason === "" && rank >= 0) return yield* new OtherRankError({ rank, reason: reasons[rank] });
});

/**
 * A check, to be run after a step, that all ranks have the same bits in all of the state. It fails with a `RanksDifferError`
 * that names the first tensor and rank that differ, or with a `CollectiveError` or `GpuError`.
 */
export const replicaCheck = Effect.fnUntraced(function* (
  state: StateBuilder,
  buffers: DeviceState,
): Effect.fn.Return<
  (step: number) => Effect.Effect<void, RanksDifferError | CollectiveError | GpuError>,
  PlanError | GpuError,
  Gpu | Scope.Scope
> {
  const { world, allGather } = yield* Collective;
  if (world === 1) return () => Effect.void;
  const declared = [...state.declared.values()];
  const outputs = Object.fromEntries(declared.map(({ name, tensor }) => [name, checksum(tensor)]));
  const program = yield* compile({ label: "checksums of the state", outputs }, buffers);
  return Effect.fnUntraced(function* (step: number) {
    const sums = yield* yield* program.run({});
    const own = Float32Array.from(declared.flatMap(({ name }) => [...sums[name]]));
    const all = yield* allGather(own);
    const differing = all.findIndex((value, i) => value !== all[i % own.length]);
    if (differing < 0) return;
    const rank = Math.floor(differing / own.length);
    const { name } = declared[Math.floor(differing % own.length / (own.length / declared.length))];
    return yield* new RanksDifferError({
      reason:
        `After step ${step} rank ${rank} holds other values of ${name} than rank 0: its device computes ` +
        `otherwise or is faulty. Start the run again without it (--device names those to take); --auto-resume goes on ` +
        "from the last checkpoint, if there is one",
    });
  });
});
