/** How to time work on the device: many runs, then one wait, for a wait takes about 11 ms however short the run. */
import { Effect } from "effect";
import type { Program, Upload } from "../ops/runtime/program.ts";

/** Makes so many runs, one after the other, and waits until the last of them is done. */
export type Runs<E = unknown, R = never> = (count: number) => Effect.Effect<void, E, R>;

/** How long a timing should take, so that the wait at its end is lost in it. */
const LONG_ENOUGH = 300;

/**
 * Runs of a program on the same inputs. Only the outputs of the last run are read; those of the others are overwritten,
 * so that more runs may be under way than a caller who reads them all could have.
 */
export const runsOf = (program: Program, uploads: Readonly<Record<string, Upload>> = {}) =>
  Effect.fnUntraced(function* (count: number) {
    for (let run = 1; run < count; run++) yield* program.run(uploads);
    yield* Effect.flatten(program.run(uploads));
  });

/** How many runs make a timing long enough. The first one of all is not counted: drivers compile then. */
export const runsPerTiming = Effect.fnUntraced(function* <E, R>(runs: Runs<E, R>) {
  yield* runs(1);
  for (let count = 1;; count *= 4) {
    const milliseconds = yield* timed(runs(count));
    if (milliseconds > LONG_ENOUGH / 2) return Math.max(1, Math.round(count * LONG_ENOUGH / milliseconds));
  }
});

/** The milliseconds that an effect takes. */
export const timed = Effect.fnUntraced(function* <E, R>(effect: Effect.Effect<void, E, R>) {
  const start = performance.now();
  yield* effect;
  return performance.now() - start;
});

export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1];
