/** The learning rates of fine-tuning, iteration by iteration, as mmcv's hooks "step" and "poly" set them (docs/method.md, section 16). */

/** How the learning rate falls. */
export type RatePolicy = StepPolicy | PolyPolicy;

/** The rate is multiplied by a factor at some iterations. */
export interface StepPolicy {
  /** Tells the policies apart. */
  readonly schedule: "step";
  /** The rate at the start. */
  readonly baseLr: number;
  /** Iterations, counted from 0, from each of which on the factor applies once more. */
  readonly milestones: readonly number[];
  /** The factor. */
  readonly decay: number;
}

/** The rate falls to a floor as a power of the iterations that are left. */
export interface PolyPolicy {
  /** Tells the policies apart. */
  readonly schedule: "poly";
  /** The rate at the start. */
  readonly baseLr: number;
  /** The floor, which the last iteration does not quite reach. */
  readonly minLr: number;
  /** The exponent. */
  readonly power: number;
  /** Iterations of the whole run. */
  readonly iterations: number;
}

/** The learning rate of an iteration, counted from 0. */
export const policyRate = (iteration: number, policy: RatePolicy): number => {
  if (policy.schedule === "step") {
    const reached = policy.milestones.filter((milestone) => iteration >= milestone).length;
    return policy.baseLr * policy.decay ** reached;
  }
  const { baseLr, minLr, power, iterations } = policy;
  return (baseLr - minLr) * (1 - iteration / iterations) ** power + minLr;
};
