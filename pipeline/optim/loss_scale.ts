/**
 * Dynamic loss scaling for half precision (Micikevicius et al. 2018), with the rule and the numbers of PyTorch's
 * GradScaler (method.md, section 7): the loss is multiplied by a scale before gradients are derived, so that small ones do
 * not vanish in f16, and gradients are divided by it before they are used. A step with a gradient that is not finite
 * leaves parameters and the optimiser's buffers as they are, and halves the scale; 2000 steps in a row without one double
 * it. All else of a skipped step counts: the teacher, the centre, running statistics and the schedules move on.
 *
 * The scale is part of the run's state, on the device and in checkpoints.
 */
import { add, div, greater, greaterEqual, mul, sub, where } from "../../ops/arithmetic.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import type { StateValues } from "../run/state_layout.ts";

export const INITIAL_SCALE = 65536;
export const GROWTH = 2;
export const BACKOFF = 0.5;
export const GROWTH_INTERVAL = 2000;

/** The names of its state. */
export const SCALER = {
  scale: "scaler.scale",
  growthTracker: "scaler.growth_tracker", // good steps since the scale last changed
  skipped: "scaler.skipped", // steps, in all
} as const;
const isScaler = (name: string) => name.startsWith("scaler.");

/** Where the next doubling would be infinite. */
const LARGEST = 2 ** 127;

/** The scale of a step; scalars []. */
export interface LossScale {
  readonly scale: Tensor;
  /** Of a gradient of the scaled loss, that of the loss. */
  readonly unscaled: (gradient: Tensor) => Tensor;
  /**
   * Moves the scale on after a step with so many gradients that are not finite. Gives what the step does with a piece of
   * state, and how scale and skipped steps stand after it.
   */
  readonly afterStep: (overflows: Tensor) => {
    readonly keepOldIfSkipped: (next: Tensor, current: Tensor) => Tensor;
    readonly metrics: { readonly loss_scale: Tensor; readonly skipped_steps: Tensor };
  };
}

/** Declares the scale and what it depends on. */
export const lossScale = (state: StateBuilder): LossScale => {
  const declare = (name: string, value: number) =>
    state.declare(name, [], "same", { kind: "constant", value });
  const scale = declare(SCALER.scale, INITIAL_SCALE);
  const tracker = declare(SCALER.growthTracker, 0);
  const skipped = declare(SCALER.skipped, 0);
  return {
    scale,
    unscaled: (gradient) => mul(gradient, div(1, scale)),
    afterStep: (overflows) => {
      const skips = greater(overflows, 0);
      const good = add(tracker, 1);
      const grows = greaterEqual(good, GROWTH_INTERVAL);
      const grown = where(greaterEqual(scale, LARGEST), scale, mul(scale, GROWTH));
      const nextScale = where(skips, mul(scale, BACKOFF), where(grows, grown, scale));
      const nextSkipped = add(skipped, skips);
      state.updates.set(scale, nextScale);
      state.updates.set(tracker, mul(sub(1, skips), mul(sub(1, grows), good)));
      state.updates.set(skipped, nextSkipped);
      return {
        keepOldIfSkipped: (next, current) => where(skips, current, next),
        metrics: { loss_scale: nextScale, skipped_steps: nextSkipped },
      };
    },
  };
};

/**
 * The state of a checkpoint for a run that may have another precision: it lacks a scale, which then begins anew, or has
 * one that is not needed.
 */
export const withLossScaleOf = (state: StateBuilder, values: StateValues): StateValues => {
  const own = new Map([...values].filter(([name]) => !isScaler(name) || state.declared.has(name)));
  for (const { name, shape, init } of state.declared.values()) {
    if (isScaler(name) && !own.has(name) && init.kind === "constant") {
      own.set(name, { shape, data: new Float32Array(sizeOf(shape)).fill(init.value) });
    }
  }
  return own;
};
