/**
 * The stage that saves checkpoints, while training goes on, and removes those that are no longer needed.
 *
 * Whether a checkpoint stays is decided when it is saved: the file `checkpoints/rotating` lists those that may be
 * removed. All others stay, whatever the options of a later run in the folder are.
 */
import { join } from "node:path";
import { Effect, Fiber, type Scope } from "effect";
import { exists } from "../../data/files/exists.ts";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import type { GpuError } from "../../ops/runtime/gpu.ts";
import {
  CheckpointError,
  checkpointFolder,
  checkpointName,
  type RunMeta,
  saveCheckpoint,
  savedStep,
  type Task,
} from "./checkpoint_file.ts";
import { expectFiniteState, type NonFiniteStateError } from "./divergence.ts";
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
   * written, logs a warning and lets the run go on, which tries again at the next one. Fails where the device does, and
   * with a `NonFiniteStateError` where the state of the save before was not finite: that is never written.
   */
  readonly save: (
    meta: Meta,
    copy: Effect.Effect<StateValues, GpuError>,
  ) => Effect.Effect<void, GpuError | NonFiniteStateError>;
  /** Saves a copy of the state in the same way, as the run's best checkpoint, which replaces the one before it. */
  readonly saveBest: Checkpoints<Meta>["save"];
  /**
   * Waits for the last save. Fails with a `CheckpointError` where that could not be written, or as `save` does.
   */
  readonly settled: Effect.Effect<void, CheckpointError | GpuError | NonFiniteStateError>;
}

/** The checkpoints of a rank that saves none. */
export const noCheckpoints: Checkpoints<RunMeta> = {
  due: () => false,
  save: () => Effect.void,
  saveBest: () => Effect.void,
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
    const rotating = rotatingList(folder);
    yield* Effect.promise(() => removeRemains(folder));
    let writing: Fiber.Fiber<void, CheckpointError | GpuError | NonFiniteStateError> | null = null;
    yield* Effect.addFinalizer(() => writing === null ? Effect.void : Fiber.await(writing));

    const cannotSave = Effect.mapError(({ message }: Error) =>
      new CheckpointError({ subject: folder, action: "save", reason: message })
    );
    const soundState = Effect.fnUntraced(function* (meta: Meta, copy: Effect.Effect<StateValues, GpuError>) {
      const tensors = yield* copy; // first, since it holds memory of the device
      yield* expectFiniteState(meta.step, tensors);
      yield* cannotSave(flush);
      return tensors;
    });
    const writeBest = Effect.fnUntraced(function* (meta: Meta, copy: Effect.Effect<StateValues, GpuError>) {
      const tensors = yield* soundState(meta, copy);
      yield* Effect.logInfo(`saved ${yield* saveCheckpoint(plan.outputDir, task, { meta, tensors }, true)}`);
    });
    const write = Effect.fnUntraced(function* (meta: Meta, copy: Effect.Effect<StateValues, GpuError>) {
      const tensors = yield* soundState(meta, copy);
      const name = checkpointName(meta.step);
      const before = yield* cannotSave(rotating.names);
      const stays = meta.step % (plan.saveFreq * plan.stepsPerEpoch) === 0;
      const replaces = !before.has(name) && exists(join(folder, name));
      const other = replaces ? yield* cannotSave(copyAside(folder, name)) : null;
      if (!stays && !replaces) yield* cannotSave(rotating.write(new Set(before).add(name)));
      const file = yield* saveCheckpoint(plan.outputDir, task, { meta, tensors });
      if (stays && before.has(name)) yield* cannotSave(rotating.write(without(before, [name])));
      if (other !== null) yield* Effect.promise(() => removeIfSame(other, file));
      yield* Effect.logInfo(`saved ${file}`);
      yield* removeOld(folder, rotating, meta.step, plan.keep).pipe(Effect.ignore); // the next save tries again
    });

    const settled = Effect.suspend(() => writing === null ? Effect.void : Fiber.join(writing));
    const inBackground = (work: typeof write): Checkpoints<Meta>["save"] =>
      Effect.fnUntraced(function* (meta, copy) {
        yield* settled.pipe(Effect.catchTag("CheckpointError", () => Effect.void)); // a warning has been logged
        writing = yield* work(meta, copy).pipe(
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

    const [save, saveBest] = [inBackground(write), inBackground(writeBest)];
    return { due: schedule(plan), save, saveBest, settled } satisfies Checkpoints<Meta> as Checkpoints<Meta>;
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

/** The names of the checkpoints in a folder that may be removed, in a file of one name a line. */
const rotatingList = (folder: string) => {
  const path = join(folder, "rotating");
  const failed = (error: unknown) => error as Error;
  return {
    names: Effect.try({
      try: (): ReadonlySet<string> =>
        new Set(exists(path) ? Deno.readTextFileSync(path).split("\n").filter((name) => name !== "") : []),
      catch: failed,
    }),
    write: (names: ReadonlySet<string>): Effect.Effect<void, Error> =>
      Effect.try({ try: () => Deno.mkdirSync(folder, { recursive: true }), catch: failed }).pipe(
        Effect.andThen(
          writeWholeFile(path, [new TextEncoder().encode([...names].map((name) => `${name}\n`).join(""))]),
        ),
      ),
  };
};

const without = (names: ReadonlySet<string>, gone: readonly string[]): ReadonlySet<string> =>
  new Set([...names].filter((name) => !gone.includes(name)));

/** Removes the checkpoints that may be removed, but not the newest `keep` of them, and not those of later steps. */
const removeOld = Effect.fnUntraced(function* (
  folder: string,
  rotating: ReturnType<typeof rotatingList>,
  newest: number,
  keep: number,
) {
  const names = yield* rotating.names;
  const others = [...names].map((name) => ({ name, step: savedStep(name) }))
    .filter(({ step }) => step !== null && step <= newest)
    .sort((a, b) => b.step! - a.step!);
  const gone = others.slice(keep).map(({ name }) => name);
  if (gone.length === 0) return;
  for (const name of gone) yield* Effect.promise(() => Deno.remove(join(folder, name)).catch(() => {}));
  yield* rotating.write(without(names, gone.filter((name) => !exists(join(folder, name)))));
});

/**
 * Copies a checkpoint that stays, whose name a new one is about to take, as steps that count otherwise make it happen:
 * to `step_000050.1.safetensors` or the next number that is free. Returns the path of the copy.
 */
const copyAside = (folder: string, name: string): Effect.Effect<string, Error> =>
  Effect.try({
    try: () => {
      const numbered = (number: number) => join(folder, name.replace(/\.safetensors$/, `.${number}$&`));
      let number = 1;
      while (exists(numbered(number))) number++;
      Deno.copyFileSync(join(folder, name), numbered(number));
      return numbered(number);
    },
    catch: (error) => error as Error,
  });

/** Removes a copy of a checkpoint that the new one is the same as, bit for bit. */
const removeIfSame = async (copy: string, file: string) => {
  const [old, now] = await Promise.all([copy, file].map((path) => Deno.readFile(path)));
  if (old.length === now.length && old.every((byte, i) => byte === now[i])) await Deno.remove(copy);
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
