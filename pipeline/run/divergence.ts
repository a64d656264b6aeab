/** Training that has diverged: the check of every step's numbers. */
import { Data, Effect } from "effect";

/** The loss is not a number any more: the run cannot go on from here. */
export class NonFiniteLossError extends Data.Error<{
  readonly step: number;
  readonly loss: number;
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
    return `The loss of step ${this.step} is ${this.loss}: ${this.remedy}, and go on from the last checkpoint with ` +
      `--auto-resume. The pictures of that step: ${this.images.join(", ")}`;
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
 * Checks the numbers of a step. Fails with a `NonFiniteLossError` where the loss is not finite, which advises
 * `remedy`, and with a `NonFiniteGradientsError` where the loss scale shows that the gradients have not been finite
 * for many steps.
 */
export const expectFinite = (
  { loss, loss_scale }: { readonly loss: number; readonly loss_scale?: number },
  { step, images }: { readonly step: number; readonly images: readonly string[] },
  remedy: string,
): Effect.Effect<void, NonFiniteLossError | NonFiniteGradientsError> => {
  if (!Number.isFinite(loss)) {
    return Effect.fail(new NonFiniteLossError({ step, loss, images: [...images], remedy }));
  }
  if (loss_scale !== undefined && loss_scale < LEAST_SCALE) {
    return Effect.fail(new NonFiniteGradientsError({ step, scale: loss_scale }));
  }
  return Effect.void;
};
