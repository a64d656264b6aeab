/** The errors of replayed steps and their tolerances, group by group. */
import type { VerifyRow } from "./report.ts";

/** The distance of two tensors: the largest difference of a value, and Euclidean norms. */
interface Distance {
  readonly largest: number;
  /** The norm of the difference. */
  readonly difference: number;
  /** The norm of the recorded tensor. */
  readonly want: number;
  /** The norm of its change since the start of the recording. */
  readonly change: number;
}

interface Tolerance {
  readonly tolerance: string;
  readonly error: (distance: Distance) => number;
  readonly limit: number;
}

/** part / whole, and 0 / 0 = 0: where zeros were recorded, zeros must be computed. */
const ratio = (part: number, whole: number) => part === 0 ? 0 : part / whole;

const equal: Tolerance = { tolerance: "equal", error: ({ largest }) => largest, limit: 0 };
const absolute = (limit: number): Tolerance => ({
  tolerance: `${limit.toExponential()} absolute`,
  error: ({ largest }) => largest,
  limit,
});
const relative = (limit: number): Tolerance => ({
  tolerance: `${limit.toExponential()} · ‖want‖`,
  error: ({ difference, want }) => ratio(difference, want),
  limit,
});

// About fifty times the rounding of float32, which leaves room for other orders of summation.
const TOLERANCES = {
  "losses": relative(5e-5),
  "activations": relative(2e-4),
  "active slots": equal,
  "gradients of activations": relative(1e-3),
  "gradients of parameters": relative(1e-3),
  // Exactly 0 in theory: both the computed and the recorded values are rounding errors.
  "gradients of biases before a norm": absolute(1e-4),
  // The change may be far smaller than the values: relative to the values alone, a missing update would go unnoticed.
  "state after the step": {
    tolerance: "1 × (1e-3 · ‖change‖ + 2.5e-7 · ‖want‖)",
    error: ({ difference, want, change }) => ratio(difference, 1e-3 * change + 2.5e-7 * want),
    limit: 1,
  },
  "biases before a norm after the step": absolute(1e-4),
  "counters of batches": equal,
  "recorded but not computed": { tolerance: "none", error: () => Infinity, limit: 0 },
} satisfies Readonly<Record<string, Tolerance>>;
type Group = keyof typeof TOLERANCES;

const groupOf = (name: string): Group => {
  const beforeNorm = /mlp\.[03]\.bias$/.test(name);
  if (name.includes("/grad/")) {
    return beforeNorm ? "gradients of biases before a norm" : "gradients of parameters";
  }
  if (name.endsWith("num_batches_tracked")) return "counters of batches";
  if (name.includes("/after/")) {
    return beforeNorm ? "biases before a norm after the step" : "state after the step";
  }
  const what = name.slice(name.lastIndexOf("/") + 1);
  if (what.startsWith("active_")) return "active slots";
  if (what.startsWith("grad_")) return "gradients of activations";
  return what.includes("_") ? "activations" : "losses";
};

/** One compared tensor. */
export interface Compared {
  /** The group that it belongs to. */
  readonly group: Group;
  /** Its name in the recording. */
  readonly name: string;
  /** Its error in the unit of the group's tolerance; Infinity where a value is NaN. */
  readonly error: number;
}

/**
 * Compares a tensor with the recorded one, `want`; `start` are the values of state before the first step, else null.
 */
export const compareStepTensor = (
  name: string,
  got: Float32Array,
  want: Float32Array,
  start: Float32Array | null,
): Compared => {
  let largest = 0, difference = 0, norm = 0, change = 0;
  for (let i = 0; i < want.length; i++) {
    const distance = Math.abs(got[i] - want[i]);
    largest = Math.max(largest, distance); // stays NaN
    difference += distance ** 2;
    norm += want[i] ** 2;
    if (start !== null) change += (want[i] - start[i]) ** 2;
  }
  const group = groupOf(name);
  const error = TOLERANCES[group].error({
    largest,
    difference: Math.sqrt(difference),
    want: Math.sqrt(norm),
    change: Math.sqrt(change),
  });
  return { group, name, error: Number.isNaN(error) ? Infinity : error };
};

/** A recorded tensor that no step of the configuration computes. */
export const notComputed = (name: string): Compared => (
  { group: "recorded but not computed", name, error: Infinity }
);

/** The largest error of each group, in the order of the table above. */
export const summariseSteps = (compared: readonly Compared[]): VerifyRow[] =>
  (Object.keys(TOLERANCES) as Group[]).flatMap((group) => {
    const members = compared.filter((member) => member.group === group);
    if (members.length === 0) return [];
    const worst = members.reduce((a, b) => b.error > a.error ? b : a);
    const { limit, tolerance } = TOLERANCES[group];
    const holds = worst.error <= limit;
    return [{ group, tensors: members.length, worst: worst.error, tolerance, holds, note: worst.name }];
  });
