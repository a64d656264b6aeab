/** The stage that saves checkpoints, while training goes on, and clears away those that are no longer needed. */
import { join } from "node:path";
import { Effect, Fiber } from "effect";
import type { GpuError } from "../../ops/runtime/gpu.ts";
import type { Config } from "../pretrain/config.ts";
import {
  CheckpointError,
  checkpointFolder,
  type RunMeta,
  saveCheckpoint,
  savedStep,
  type Task,
} from "./checkpoint_file.ts";
import { StageSpan } from "./otlp.ts";
import type { RunFolderError } from "./run_folder.ts";
import type { StateValues } from "./state_layout.ts";

/** When to save, and what to keep. */
export interface CheckpointPlan
  extends Pick<Config, "outputDir" | "saveFreq" | "saveSteps" | "saveMinutes" | "keep"> {
  readonly stepsPerEpoch: number;
  readonly lastStep: number;
}

/** A run's checkpoints as it saves them. */
export interface Checkpoints<Meta extends RunMeta> {
  /** Is a checkpoint due when this many steps are done? Asked once a step. */
  readonly due: (done: number) => boolean;
  /**
   * Saves a copy of the state, in the background: waits only where the save before it is not finished. Where one cannot
   * be written, the run says so and goes on; it tries again at the next one. Fails if the device did.
   */
  readonly save: (meta: Meta, copy: Effect.Effect<StateValues, GpuError>) => Effect.Effect<void, GpuError>;
  /** Waits for the last save. Fails if that could not be written. */
  readonly settled: Effect.Effect<void, CheckpointError | GpuError>;
}

/** Of a rank that saves none. */
export const noCheckpoints: Checkpoints<RunMeta> = {
  due: () => false,
  save: () => Effect.void,
  settled: Effect.void,
};

/**
 * The checkpoints of a run. `flush` brings onto the disk what a checkpoint builds on, the metrics of its steps. A save
 * that has begun is finished before the scope ends, whatever else happens.
 */
export const checkpoints = Effect.fn("checkpoints")(function* <Meta extends RunMeta>(
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
    const tensors = yield* copy; // first: it holds memory of the device
    yield* flush.pipe(
      Effect.mapError(({ message }) =>
        new CheckpointError({ file: folder, action: "save", reason: message })
      ),
    );
    const file = yield* saveCheckpoint(plan.outputDir, task, { meta, tensors });
    yield* Effect.logInfo(`saved ${file}`);
    yield* Effect.promise(() => removeOld(folder, meta.step, plan));
  });

  const settled = Effect.suspend(() => writing === null ? Effect.void : Fiber.join(writing));
  const save: Checkpoints<Meta>["save"] = Effect.fnUntraced(function* (meta, copy) {
    yield* settled.pipe(Effect.catchTag("CheckpointError", () => Effect.void)); // it has been told
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
});

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

/** Checkpoints at the ends of every `saveFreq` epochs stay; of the others the newest `keep`, and those of later steps. */
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

/** What saves left behind that were killed. */
const removeRemains = async (folder: string) => {
  try {
    for await (const { name } of Deno.readDir(folder)) {
      if (name.endsWith(".partial")) await Deno.remove(join(folder, name), { recursive: true });
    }
  } catch {
    // There is no folder yet, or it may not be written: the first save will say so.
  }
};
