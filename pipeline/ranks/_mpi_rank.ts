/** The program of each rank in mpi_test.ts: runs the case of this name and prints its results as JSON. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime";
import { Cause, Effect } from "effect";
import { randomStream } from "../../data/random/random.ts";
import { Collective } from "../../ops/runtime/collective.ts";
import { ranks } from "./mpi.ts";

const digest = (values: Float32Array) =>
  Effect.promise(async () =>
    new Uint8Array(await crypto.subtle.digest("SHA-256", values as Float32Array<ArrayBuffer>)).toHex()
  );

const randomNumbers = (seed: number, rank: number, count: number) => {
  const random = randomStream(seed, rank);
  return Float32Array.from({ length: count }, () => random.uniform() - 0.5);
};

/** Sums of many lengths, so that MPI takes all its ways of making them. */
const sums = Effect.fnUntraced(function* ({ rank, allReduceSum }: Collective) {
  const digests: string[] = [];
  for (const length of [1, 3, 100, 4097, 300_001, 2_000_000]) {
    const own = randomNumbers(1, rank, length);
    digests.push(yield* digest(yield* allReduceSum(own)));
  }
  return { digests, small: [...yield* allReduceSum(Float32Array.of(1, 10 * rank, -0.5))] };
});

const exchanges = Effect.fnUntraced(function* (collective: Collective) {
  const { rank, world, allGather, broadcast, barrier } = collective;
  yield* barrier;
  const gathered = [...yield* allGather(Float32Array.of(rank, 0.5))];
  const own = new TextEncoder().encode(rank === 0 ? "of rank 0" : "another..");
  const received = new TextDecoder().decode(yield* broadcast(own));
  const none = (yield* allGather(new Float32Array(0))).length;
  return { world, gathered, received, none };
});

/** A hundred calls of different kinds at once. */
const inFlight = Effect.fnUntraced(function* ({ rank, allReduceSum, allGather }: Collective) {
  const calls = Array.from(
    { length: 100 },
    (_, i) =>
      i % 2 === 0 ? allReduceSum(Float32Array.of(i, rank)) : allGather(Float32Array.of(1000 * rank + i)),
  );
  const results = yield* Effect.all(calls, { concurrency: "unbounded" });
  return { results: results.map((values) => [...values]) };
});

/** Counts what JavaScript's thread does while MPI waits for rank 1. */
const free = Effect.fnUntraced(function* ({ rank, barrier }: Collective) {
  if (rank === 1) yield* Effect.sleep("1 second");
  let ticks = 0;
  const interval = setInterval(() => ticks++, 10);
  yield* barrier;
  clearInterval(interval);
  return { ticks };
});

const unequal = ({ rank, allReduceSum }: Collective) =>
  Effect.as(allReduceSum(new Float32Array(rank === 0 ? 10 : 1000)), {});

/** Rank 1 hangs. */
const absent = ({ rank, barrier }: Collective) => rank === 1 ? Effect.never : Effect.as(barrier, {});

/** Rank 1 fails while the others wait for it. */
const failing = ({ rank, barrier }: Collective) =>
  rank === 1 ? Effect.fail(new Error("rank 1 has no data")) : Effect.as(barrier, {});

/** Says so, and blocks JavaScript's thread for good. */
const blocked = ({ barrier }: Collective) =>
  Effect.map(barrier, () => {
    console.log("blocked");
    for (;;);
  });

/** Whether a library of MPI is in this process. */
const loaded = ({ world }: Collective) =>
  Effect.sync(() => ({ world, loaded: /libmpi/.test(Deno.readTextFileSync("/proc/self/maps")) }));

const cases: Record<string, (collective: Collective) => Effect.Effect<object, Error>> = {
  ...{ sums, exchanges, inFlight, free },
  ...{ unequal, absent, failing, blocked, loaded },
};

const [name, watchdogMinutes] = Deno.args;
NodeRuntime.runMain(
  Effect.gen(function* () {
    const collective = yield* Collective;
    const found = yield* cases[name](collective);
    console.log(JSON.stringify({ rank: collective.rank, ...found }));
  }).pipe(
    Effect.provide(ranks({ watchdogMinutes: Number(watchdogMinutes) })),
    Effect.tapCause((cause) => Effect.sync(() => console.error((Cause.squash(cause) as Error).message))),
  ),
  { disableErrorReporting: true },
);
