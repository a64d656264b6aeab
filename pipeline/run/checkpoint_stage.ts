/** The stage that saves checkpoints, while training goes on, and removes those that are no longer needed. */
import { join } from "node:path";
import { Effect, Fiber, type Scope } from "effect";
import type { GpuError } from "../../ops/runtime/gpu.ts";
import {
  CheckpointError,
  checkpointFolder,
  type RunMeta,
  saveCheckpoint,
  savedStep,
  type Task,
} from "./checkpoint_file.ts";
import type { RunConfig } from "./options.ts";
import { StageSpan } from "./otlp.ts";
import type { RunFolderError } from "./run_folder.ts";
import type { StateValues } from "./state_layout.ts";

/** When to save, and what to keep. */
export interface CheckpointPlan
  extends Pick<RunConfig, "outputDir" | "saveFreq" | "saveSteps" | "saveMinutes" | "keep"> {
  /** Steps from one epoch to the next: checkpoints stay that are saved after a multiple of `saveFreq` epochs. */
  readonly stepsPerEpoch: number;
  /** Steps that will be done at the end, when a last checkpoint is saved. */
  readonly lastStep: number;
}

/** A run's checkpoints as it saves them. */
export interface Checkpoints<Meta extends RunMeta> {
  /** Whether a checkpoint is due after `done` steps. To be asked once a step. */
  readonly due: (done: number) => boolean;
  /**
   * Saves a copy of the state in the background; waits only for the save before it. Where a checkpoint cannot be
   * written, logs a warning and lets the run go on, which tries again at the next one. Fails where the device does.
   */
  readonly save: (meta: Meta, copy: Effect.Effect<StateValues, GpuError>) => Effect.Effect<void, GpuError>;
  /** Waits for the last save. Fails with a `CheckpointError` where that could not be written. */
  readonly settled: Effect.Effect<void, CheckpointError | GpuError>;
}

/** The checkpoints of a rank that saves none. */
export const noCheckpoints: Checkpoints<RunMeta> = {
  due: () => false,
  save: () => Effect.void,
  settled: Effect.void,
};

/**
 * The checkpoints of a run of a task. `flush` brings onto the disk what a checkpoint relies on: the metrics of the
 * steps before it. A save that has begun is finished before the scope ends, whatever else happens.
 */
export const checkpoints: <Meta extends RunMeta>(
  task: Task<Meta>,
  plan: CheckpointPlan,
  flush: Effect.Effect<void, RunFolderError>,
) => Effect.Effect<Checkpoints<Meta>, never, Scope.Scope> = Effect.fn("checkpoints")(
  function* <Meta extends RunMeta>(
    task: Task<Meta>,
    plan: CheckpointPlan,
    flush: Effect.Effect<void, RunFolderError>,
  ) {
    const folder = checkpointFolder(plan.outputDir);
    const span = yield* StageSpan;
    yield* Effect.promise(() => removeRemains(folder));
    let writing: Fiber.Fiber<void, CheckpointError | GpuError> | null = null;
    yield* Effect.addFinalizer(() => writing === null ? Effect.void : Fiber.await(writing));

    const write = Effect.fnUntraced(function* (meta: Meta, copy: Effect.Effect<StateValues, GpuError>) {
      const tensors = yield* copy; // first, since it holds memory of the device
      yield* flush.pipe(
        Effect.mapError(({ message }) =>
          new CheckpointError({ subject: folder, action: "save", reason: message })
        ),
      );
      const file = yield* saveCheckpoint(plan.outputDir, task, { meta, tensors });
      yield* Effect.logInfo(`saved ${file}`);
      yield* Effect.promise(() => removeOld(folder, meta.step, plan));
    });

    const settled = Effect.suspend(() => writing === null ? Effect.void : Fiber.join(writing));
    const save: Checkpoints<Meta>["save"] = Effect.fnUntraced(function* (meta, copy) {
      yield* settled.pipe(Effect.catchTag("CheckpointError", () => Effect.void)); // a warning has been logged
      writing = yield* write(meta, copy).pipe(
        span("save", meta.step),
        Effect.tapErrorTag(
          "CheckpointError",
          ({ message }) =>
            Effect.logWarning(
              `${message}. Older checkpoints are as they were; the run goes on and tries again`,
            ),
        ),
        Effect.forkDetach({ startImmediately: true }),
      );
    });

    return { due: schedule(plan), save, settled } satisfies Checkpoints<Meta> as Checkpoints<Meta>;
  },
);

const schedule = ({ saveFreq, stepsPerEpoch, saveSteps, saveMinutes, lastStep }: CheckpointPlan) => {
  let last = performance.now();
  return (done: number) => {
    const due = done === lastStep ||
      done % (saveFreq * stepsPerEpoch) === 0 ||
      saveSteps !== null && done % saveSteps === 0 ||
      saveMinutes !== null && performance.now() - last >= saveMinutes * 60_000;
    if (due) last = performance.now();
    return due;
  };
};

/**
 * Removes checkpoints, but not those at the ends of every `saveFreq` epochs, not the newest `keep` others, and not
 * those of later steps.
 */
const removeOld = async (
  folder: string,
  newest: number,
  { saveFreq, stepsPerEpoch, keep }: CheckpointPlan,
) => {
  const others = Array.from(Deno.readDirSync(folder), ({ name }) => ({ name, step: savedStep(name) }))
    .filter(({ step }) => step !== null && step <= newest && step % (saveFreq * stepsPerEpoch) !== 0)
    .sort((a, b) => b.step! - a.step!);
  for (const { name } of others.slice(keep)) await Deno.remove(join(folder, name)).catch(() => {});
};

/** Removes the files that saves left behind when they were killed. */
const removeRemains = async (folder: string) => {
  try {
    for await (const { name } of Deno.readDir(folder)) {
      if (name.endsWith(".partial")) await Deno.remove(join(folder, name), { recursive: true });
    }
  } catch {
    // There is no folder yet, or it may not be written: the first save will say so.
  }
};
