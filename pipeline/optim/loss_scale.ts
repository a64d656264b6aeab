/**
 * Dynamic loss scaling for half precision (Micikevicius et al. 2018), with the rule and the numbers of PyTorch's
 * GradScaler (docs/method.md, section 7). The loss is multiplied by a scale before gradients are derived, so that small
 * gradients do not vanish in f16, and gradients are divided by it before they are used. A step with a gradient that is not
 * finite leaves parameters and the optimiser's buffers as they are, and halves the scale; 2000 good steps in a row double
 * it. The rest of a skipped step counts: teacher, centre, running statistics and schedules move on.
 *
 * The scale is part of the run's state, on the device and in checkpoints.
 */
import { add, div, greater, greaterEqual, mul, sub, where } from "../../ops/arithmetic.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";
import type { StateBuilder } from "../model/state_builder.ts";

/** The scale of the first step. */
export const INITIAL_SCALE = 65536;
/** Factor of the scale after GROWTH_INTERVAL good steps in a row. */
export const GROWTH = 2;
/** Factor of the scale after a skipped step. */
export const BACKOFF = 0.5;
/** Good steps in a row after which the scale grows. */
export const GROWTH_INTERVAL = 2000;

/** The names of its state, scalars []. */
export const SCALER = {
  scale: "scaler.scale",
  growthTracker: "scaler.growth_tracker", // good steps since the scale last changed
  skipped: "scaler.skipped", // skipped steps in all
} as const;

/** The largest scale, whose double would be infinite. */
const LARGEST = 2 ** 127;

/** The loss scale within one step. */
export interface LossScale {
  /** The scale of this step, []. */
  readonly scale: Tensor;
  /** The gradient of the loss, from that of the scaled loss; of the same shape. */
  readonly unscaled: (gradient: Tensor) => Tensor;
  /**
   * Updates the scale by the number of gradient elements that are not finite, []. `keepOldIfSkipped` gives the next value
   * of a tensor of the state, which is the current one in a skipped step; the metrics are the next scale and the number
   * of skipped steps, [].
   */
  readonly afterStep: (overflows: Tensor) => {
    readonly keepOldIfSkipped: (next: Tensor, current: Tensor) => Tensor;
    readonly metrics: { readonly loss_scale: Tensor; readonly skipped_steps: Tensor };
  };
}

/** Declares the scale and its counters, as buffers. */
export const lossScale = (state: StateBuilder): LossScale => {
  const declare = (name: string, value: number) =>
    state.declare(name, { role: "buffer", shape: [], storage: "same", init: { kind: "constant", value } });
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
