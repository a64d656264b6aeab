/** Where a run begins, as far as all tasks share it: checkpoints of this project, and what differs from their run. */
import { dirname, join, resolve } from "node:path";
import { Effect, Result } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import { isBuiltIn } from "../optim/optimizers.ts";
import {
  type Checkpoint,
  CheckpointError,
  checkpointFolder,
  checkpointsIn,
  compareState,
  latestCheckpoint,
  loadCheckpoint,
  type RunMeta,
  type Task,
  withFiniteState,
} from "./checkpoint_file.ts";
import { initialState } from "./initial_state.ts";
import { flagName } from "./option_name.ts";
import type { RunConfig, TaskOptions } from "./options.ts";
import type { GoesOnWith } from "./run_folder.ts";
import { checkpointShapes, type StateValues } from "./state_layout.ts";

/** Where a run begins. */
export interface StartingPoint {
  /** Optimiser steps that are done. */
  readonly step: number;
  /** The state after these steps. */
  readonly values: StateValues;
  /** The checkpoint that it goes on from, if it does. */
  readonly file?: string;
  /** Sentences that the user should know. */
  readonly notes: readonly string[];
  /**
   * What the run does with the run that its folder holds already; if not given, it goes on with that run after the
   * first step, and with nothing of it before.
   */
  readonly goesOnWith?: GoesOnWith;
}

/**
 * The newest checkpoint in the run's own folder, where `--auto-resume` asks for it and there is one. It comes before
 * `--resume` and `--init`, so that a run that was started with these goes on by itself. Fails with a `CheckpointError`
 * where all of them are damaged.
 */
export const autoResumed = <Meta extends RunMeta>(
  task: Task<Meta>,
  { autoResume, outputDir }: Pick<RunConfig, "autoResume" | "outputDir">,
): Effect.Effect<Checkpoint<Meta> | null, CheckpointError> =>
  autoResume ? latestCheckpoint(outputDir, task, withFiniteState) : Effect.succeed(null);

/**
 * A checkpoint of this project that `--resume` names. Fails with a `CheckpointError` where it is of another task, or
 * damaged; the error names a good one beside it.
 */
export const resumedFrom = <Meta extends RunMeta>(
  task: Task<Meta>,
  file: string,
): Effect.Effect<Checkpoint<Meta>, CheckpointError | FormatError> =>
  loadCheckpoint(file, task).pipe(
    Effect.flatMap(withFiniteState),
    Effect.catchTag("CheckpointError", nameGoodNeighbour),
  );

/** The error of a damaged checkpoint, with the newest good one in the same folder, if there is any. */
export const nameGoodNeighbour: (
  error: CheckpointError | FormatError,
) => Effect.Effect<never, CheckpointError | FormatError> = Effect.fnUntraced(function* (error) {
  const folder = dirname(error.subject);
  for (const name of yield* checkpointsIn(folder)) {
    const other = join(folder, name);
    if (resolve(other) === resolve(error.subject)) continue;
    if (Result.isFailure(yield* Effect.result(Effect.flatMap(loadCheckpoint(other), withFiniteState)))) {
      continue;
    }
    const reason = `${error.reason}. The newest good one there is "${other}"`;
    return yield* error._tag === "FormatError"
      ? new FormatError({ ...error, reason })
      : new CheckpointError({ ...error, reason });
  }
  return yield* error;
});

/** Whether a checkpoint is the newest one in the folder of a run. */
export const isNewestIn: (outputDir: string, file: string) => Effect.Effect<boolean> = Effect.fnUntraced(
  function* (outputDir, file) {
    const folder = checkpointFolder(outputDir);
    const [newest] = yield* checkpointsIn(folder);
    if (newest === undefined) return false;
    const [a, b] = [join(folder, newest), file].map((path) => Deno.statSync(path));
    return a.dev === b.dev && a.ino === b.ino;
  },
);

/** Fails with a `CheckpointError` where the buffers of a checkpoint are those of another optimiser than the run's. */
export const expectSameOptimizer = (
  file: string,
  found: string,
  optimizer: string,
): Effect.Effect<void, CheckpointError> => {
  if (found === optimizer) return Effect.void;
  const reason = `its optimiser is ${found}, whose buffers mean nothing to ${optimizer}: ` +
    `go on with ${isBuiltIn(found) ? `--optimizer ${found}` : "a step that has it"}, ` +
    `or start a new run from its weights with --init`;
  return Effect.fail(new CheckpointError({ subject: file, action: "resume from", reason }));
};

/**
 * The values with which a run whose state is `state` goes on from a checkpoint. Fails with a `CheckpointError` where
 * the checkpoint is of another architecture.
 */
export const resumedValues = (
  { file, tensors }: Pick<Checkpoint, "file" | "tensors">,
  state: StateBuilder,
): Effect.Effect<StateValues, CheckpointError> => {
  const values = withLossScaleOf(state, tensors);
  return Effect.as(compareState(checkpointShapes(state), { file, tensors: values }), values);
};

/**
 * The values of a checkpoint for a run that may have another precision: a loss scale that the checkpoint lacks is
 * initial, one that the run does not have is left out.
 */
export const withLossScaleOf = (state: StateBuilder, values: StateValues): StateValues => {
  const isScaler = (name: string) => name.startsWith("scaler.");
  const kept = [...values].filter(([name]) => !isScaler(name) || state.declared.has(name));
  const initial = [...initialState(state, 0)].filter(([name]) => isScaler(name) && !values.has(name));
  return new Map([...kept, ...initial]);
};

/** Every option that changes what is computed and whose value is not that of `before`: "--seed 3 is 4 now". */
export const changedOptions = <C>(
  { table, names }: Pick<TaskOptions<C>, "table" | "names">,
  before: Readonly<Record<keyof C, unknown>>,
  now: Readonly<Record<keyof C, unknown>>,
): string[] =>
  names.filter((name) => table[name].affects === "numbers" && before[name] !== now[name])
    .map((name) => `--${flagName(name)} ${before[name]} is ${now[name]} now`);

/** What differs from the run of a checkpoint, as one note; none where nothing does. */
export const differenceNotes = (file: string, differences: readonly string[]): string[] =>
  differences.length === 0 ? [] : [`This run differs from the one in "${file}": ${differences.join("; ")}`];
