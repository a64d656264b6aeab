/** Training that has diverged: the check of every step's numbers. */
import { Data, Effect } from "effect";
import type { StateValues } from "./state_layout.ts";

/** The numbers of a step that must be finite, by their names in the metrics. */
const CHECKED = {
  loss: "The loss",
  param_norm: "The norm of the parameters",
  grad_norm: "The norm of the gradients",
} as const;

/** The loss, or a norm of parameters or gradients, is not a number any more: the run cannot go on from here. */
export class NonFiniteLossError extends Data.Error<{
  readonly step: number;
  /** Which of them, by its name in the metrics. */
  readonly of: "loss" | "param_norm" | "grad_norm";
  readonly value: number;
  readonly images: readonly string[];
  readonly remedy: string; // which options of the task to change
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "NonFiniteLossError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `${
      CHECKED[this.of]
    } of step ${this.step} is ${this.value}: ${this.remedy}, and go on from the last checkpoint ` +
      `with --auto-resume. The pictures of that step: ${this.images.join(", ")}`;
  }
}

/** A tensor of the state is not finite when the state is to be saved. Nothing is saved. */
export class NonFiniteStateError extends Data.Error<{
  readonly step: number;
  readonly tensor: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "NonFiniteStateError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `${this.tensor} has values that are not finite after step ${this.step}, which is not saved: go on from the ` +
      `last checkpoint with --auto-resume and a lower --base-lr`;
  }
}

/** However small the loss is scaled, gradients are not finite in half precision. */
export class NonFiniteGradientsError extends Data.Error<{
  readonly step: number;
  readonly scale: number;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "NonFiniteGradientsError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `The gradients of step ${this.step} are not finite, as those of the steps before, though the loss scale is down ` +
      `to ${this.scale}: go on from the last checkpoint with --auto-resume and --precision f32, or a lower --base-lr`;
  }
}

/** A loss scale that no run needs: smaller gradients have long underflowed. */
const LEAST_SCALE = 2 ** -14;

/**
 * Checks the numbers of a step. Fails with a `NonFiniteLossError` where the loss or a norm is not finite, which advises
 * `remedy`, and with a `NonFiniteGradientsError` where the loss scale shows that the gradients have not been finite
 * for many steps. With a loss scale, gradients may be infinite in a step: it is skipped.
 */
export const expectFinite = (
  metrics: {
    readonly loss: number;
    readonly loss_scale?: number;
    readonly [name: string]: number | undefined;
  },
  { step, images }: { readonly step: number; readonly images: readonly string[] },
  remedy: string,
): Effect.Effect<void, NonFiniteLossError | NonFiniteGradientsError> => {
  const { loss_scale } = metrics;
  const names = Object.keys(CHECKED) as (keyof typeof CHECKED)[];
  for (const of of names) {
    const value = metrics[of];
    if (value === undefined || Number.isFinite(value)) continue;
    if (of === "grad_norm" && loss_scale !== undefined) continue;
    return Effect.fail(new NonFiniteLossError({ step, of, value, images: [...images], remedy }));
  }
  if (loss_scale !== undefined && loss_scale < LEAST_SCALE) {
    return Effect.fail(new NonFiniteGradientsError({ step, scale: loss_scale }));
  }
  return Effect.void;
};

/** The number of values that are infinite or NaN. */
export const countNonFinite = (values: Float32Array): number => {
  let count = 0;
  for (let i = 0; i < values.length; i++) if (values[i] - values[i] !== 0) count++;
  return count;
};

/** Fails with a `NonFiniteStateError` that names the first tensor of a state with a value that is not finite. */
export const expectFiniteState: (
  step: number,
  tensors: StateValues,
) => Effect.Effect<void, NonFiniteStateError> = Effect.fnUntraced(function* (step, tensors) {
  for (const [tensor, { data }] of tensors) {
    if (countNonFinite(data) > 0) return yield* new NonFiniteStateError({ step, tensor });
    yield* Effect.yieldNow;
  }
});
