/** Ranks of a test: fibers of one process that exchange by memory. */
import { Deferred, Effect } from "effect";
import { Collective } from "./collective.ts";

/** Runs `body` once a rank, all at the same time; what each gives, in the order of ranks. */
export const onRanks = <A, E, R>(world: number, body: (rank: number) => Effect.Effect<A, E, R>) => {
  const met = meetingPoint(world);
  return Effect.forEach(
    Array.from({ length: world }, (_, rank) => rank),
    (rank) => body(rank).pipe(Effect.provideService(Collective, memberOf(met, rank, world))),
    { concurrency: "unbounded" },
  );
};

/** Collects what each rank brings to its call number n, and hands all of it to each. */
const meetingPoint = (world: number) => {
  const calls: { brought: Float32Array[]; complete: Deferred.Deferred<Float32Array[]> }[] = [];
  return (rank: number, call: number, own: Float32Array) =>
    Effect.suspend(() => {
      const meeting = calls[call] ??= { brought: [], complete: Deferred.makeUnsafe() };
      meeting.brought[rank] = own.slice();
      if (Object.keys(meeting.brought).length === world) {
        Deferred.doneUnsafe(meeting.complete, Effect.succeed(meeting.brought));
      }
      return Deferred.await(meeting.complete);
    });
};

const memberOf = (met: ReturnType<typeof meetingPoint>, rank: number, world: number): Collective => {
  let calls = 0;
  const meet = (own: Float32Array) => Effect.suspend(() => met(rank, calls++, own));
  return {
    rank,
    world,
    allGather: (own) =>
      Effect.map(meet(own), (all) => Float32Array.from(all.flatMap((part) => Array.from(part)))),
    allReduceSum: (own) =>
      Effect.map(meet(own), (all) => all.reduce((sum, part) => sum.map((value, i) => value + part[i]))),
    broadcast: (bytes) => Effect.map(meet(Float32Array.from(bytes)), ([first]) => Uint8Array.from(first)),
    barrier: Effect.asVoid(meet(new Float32Array(0))),
  };
};
