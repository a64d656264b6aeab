/** The errors of replayed steps and their tolerances, group by group. */
import type { VerifyRow } from "./report.ts";
import {
  absolute,
  type Compared,
  compareTensor,
  equal,
  never,
  NOT_COMPUTED,
  ofChange,
  relative,
  summarise,
  type Tolerances,
} from "./tensor_errors.ts";

// About fifty times the rounding of float32, which leaves room for other orders of summation.
const TOLERANCES = {
  "losses": relative(5e-5),
  "activations": relative(2e-4),
  "active slots": equal,
  "gradients of activations": relative(1e-3),
  "gradients of parameters": relative(1e-3),
  // Exactly 0 in theory: both the computed and the recorded values are rounding errors.
  "gradients of biases before a norm": absolute(1e-4),
  "state after the step": ofChange(1e-3, 2.5e-7),
  "biases before a norm after the step": absolute(1e-4),
  "counters of batches": equal,
  [NOT_COMPUTED]: never,
} satisfies Tolerances<string>;
type Group = Exclude<keyof typeof TOLERANCES, typeof NOT_COMPUTED>;

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

/** A compared tensor of a step. */
export type ComparedInStep = Compared<Group>;

/**
 * Compares a tensor with the recorded one, `want`; `start` are the values of state before the first step, else null.
 */
export const compareStepTensor = (
  name: string,
  got: Float32Array,
  want: Float32Array,
  start: Float32Array | null,
): ComparedInStep => {
  const group = groupOf(name);
  return compareTensor({ group, name, tolerance: TOLERANCES[group] }, got, want, start);
};

/** The largest error of each group, in the order of the table above. */
export const summariseSteps = (compared: readonly ComparedInStep[]): VerifyRow[] =>
  summarise<Group>(TOLERANCES, compared);
