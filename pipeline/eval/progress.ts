import { Context, Effect } from "effect";

/** Who watches an evaluation: nobody, unless a command shows it on a terminal. */
export const EvaluationProgress = Context.Reference<
  (stage: string, done: number, total: number) => Effect.Effect<void>
>("slotcon/EvaluationProgress", { defaultValue: () => () => Effect.void });
