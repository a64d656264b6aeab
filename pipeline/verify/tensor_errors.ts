/** Errors of replayed tensors and their tolerances, group by group. */
import { Effect } from "effect";
import { type CollectiveError, gatherTexts } from "../../ops/runtime/collective.ts";
import type { VerifyRow } from "./report.ts";

/** The distance of two tensors: the largest difference of a value, and Euclidean norms. */
export interface Distance {
  /** The largest difference of a value. */
  readonly largest: number;
  /** The share of values that differ. */
  readonly differing: number;
  /** The norm of the difference. */
  readonly difference: number;
  /** The norm of the recorded tensor. */
  readonly want: number;
  /** The norm of its change since the start of the recording. */
  readonly change: number;
}

/** How far a tensor may be from the recorded one. */
export interface Tolerance {
  /** In words. */
  readonly tolerance: string;
  /** The error in the unit of the limit. */
  readonly error: (distance: Distance) => number;
  /** The largest error that holds. */
  readonly limit: number;
}

/** part / whole, and 0 / 0 = 0: where zeros were recorded, zeros must be computed. */
const ratio = (part: number, whole: number) => part === 0 ? 0 : part / whole;

/** No difference at all. */
export const equal: Tolerance = { tolerance: "equal", error: ({ largest }) => largest, limit: 0 };

/** A difference of each value. */
export const absolute = (limit: number): Tolerance => ({
  tolerance: `${limit.toExponential()} absolute`,
  error: ({ largest }) => largest,
  limit,
});

/** A share of values that differ. */
export const mostEqual = (limit: number): Tolerance => ({
  tolerance: `${limit * 100} % of the values`,
  error: ({ differing }) => differing,
  limit,
});

/** A share of the recorded tensor's norm. */
export const relative = (limit: number): Tolerance => ({
  tolerance: `${limit.toExponential()} · ‖want‖`,
  error: ({ difference, want }) => ratio(difference, want),
  limit,
});

/**
 * Shares of the change since the start and of the values. The change may be far smaller than the values: relative to these
 * alone, a missing update would go unnoticed.
 */
export const ofChange = (ofIt: number, ofValues: number): Tolerance => ({
  tolerance: `1 × (${ofIt.toExponential()} · ‖change‖ + ${ofValues.toExponential()} · ‖want‖)`,
  error: ({ difference, want, change }) => ratio(difference, ofIt * change + ofValues * want),
  limit: 1,
});

/** The tolerances of groups by their names, and of what a recording holds that nobody computed. */
export type Tolerances<Group extends string> = Readonly<Record<Group | typeof NOT_COMPUTED, Tolerance>>;

/** The group of recorded tensors that no replay of this configuration computes. */
export const NOT_COMPUTED = "recorded but not computed";

/** Nothing holds of them. */
export const never: Tolerance = { tolerance: "none", error: () => Infinity, limit: 0 };

/** One compared tensor. */
export interface Compared<Group extends string = string> {
  /** The group that it belongs to. */
  readonly group: Group | typeof NOT_COMPUTED;
  /** Its name in the recording. */
  readonly name: string;
  /** Its error in the unit of the group's tolerance; Infinity where a value is NaN. */
  readonly error: number;
}

/**
 * Compares a tensor with the recorded one, `want`; `start` are the values of state before the first step, else null.
 */
export const compareTensor = <Group extends string>(
  { group, name, tolerance }: {
    readonly group: Group;
    readonly name: string;
    readonly tolerance: Tolerance;
  },
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  start: ArrayLike<number> | null = null,
): Compared<Group> => {
  let largest = 0, differing = 0, difference = 0, norm = 0, change = 0;
  for (let i = 0; i < want.length; i++) {
    const distance = Math.abs(got[i] - want[i]);
    largest = Math.max(largest, distance); // stays NaN
    if (distance !== 0) differing += 1 / want.length;
    difference += distance ** 2;
    norm += want[i] ** 2;
    if (start !== null) change += (want[i] - start[i]) ** 2;
  }
  const error = tolerance.error({
    largest,
    differing,
    difference: Math.sqrt(difference),
    want: Math.sqrt(norm),
    change: Math.sqrt(change),
  });
  return { group, name, error: Number.isNaN(error) ? Infinity : error };
};

/** A recorded tensor that no step of the configuration computes. */
export const notComputed = (name: string): Compared<never> => ({
  group: NOT_COMPUTED,
  name,
  error: Infinity,
});

/** The largest error of each group, in the order of the tolerances. */
export const summarise = <Group extends string>(
  tolerances: Tolerances<Group>,
  compared: readonly Compared<Group>[],
): VerifyRow[] =>
  (Object.keys(tolerances) as (Group | typeof NOT_COMPUTED)[]).flatMap((group) => {
    const members = compared.filter((member) => member.group === group);
    if (members.length === 0) return [];
    const worst = members.reduce((a, b) => b.error > a.error ? b : a);
    const { limit, tolerance } = tolerances[group];
    const holds = worst.error <= limit;
    return [{ group, tensors: members.length, worst: worst.error, tolerance, holds, note: worst.name }];
  });

/** The comparisons of all processes. */
export const comparedByAll: <Group extends string>(
  own: readonly Compared<Group>[],
) => Effect.Effect<Compared<Group>[], CollectiveError> = Effect.fnUntraced(
  function* <Group extends string>(own: readonly Compared<Group>[]) {
    const texts = yield* gatherTexts(
      JSON.stringify(own.map((each) => ({ ...each, error: String(each.error) }))),
    );
    return texts.flatMap((text) =>
      (JSON.parse(text) as (Compared<Group> & { error: unknown })[]).map((each): Compared<Group> => ({
        ...each,
        error: Number(each.error),
      }))
    );
  },
);
