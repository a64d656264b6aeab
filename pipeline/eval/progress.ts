/** The progress of evaluations. */
import { Context, Effect } from "effect";

/** Reports that `done` of `total` images, or epochs, are through a stage. */
export type EvaluationProgress = (stage: string, done: number, total: number) => Effect.Effect<void>;

/** Where the progress of an evaluation goes; a no-op by default. */
export const EvaluationProgress: Context.Reference<EvaluationProgress> = Context.Reference(
  "slotcon/EvaluationProgress",
  { defaultValue: (): EvaluationProgress => () => Effect.void },
);
