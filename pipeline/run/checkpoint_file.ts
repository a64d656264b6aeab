/**
 * Checkpoint files: everything that a run needs to go on as if it had never stopped, whatever its task.
 *
 * A checkpoint is one safetensors file, `checkpoints/step_000123.safetensors` in the run's folder, which any tool can
 * read: tensors under their names in the state, in PyTorch's layout, an optimiser's buffers as `optimizer.<name of the
 * parameter>`. Its metadata names the task that wrote it, says in the task's own terms how far the run is and by which
 * options, and has the SHA-256 of every tensor and of all else. A file is either whole or absent; `checkpoints/current`
 * names the newest one (docs/method.md, section 10).
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Data, Effect, Result, Schema, type Scope } from "effect";
import { openBytes } from "../../data/files/byte_source.ts";
import { FormatError } from "../../data/files/format_error.ts";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import type { FileArray, FileTensor, StoredTensor } from "../../data/formats/file_tensor.ts";
import { openSafetensors, type PlacedTensor, writeSafetensors } from "../../data/formats/safetensors.ts";
import { expectFiniteValues, readTensors } from "./state.ts";
import { fileTensor, type StateValues } from "./state_layout.ts";

/** What every checkpoint says of its run besides the tensors; a task adds to it. */
export interface RunMeta {
  /** Optimiser steps done. */
  readonly step: number;
  /** The options of the run. */
  readonly config: object;
}

/** A kind of run: its name in checkpoints, and the schema of what they say of it. */
export interface Task<Meta extends RunMeta> {
  /** The entry `task` of a checkpoint's metadata. */
  readonly name: string;
  /** The schema of the entry `meta`. */
  readonly meta: Schema.Codec<Meta, unknown>;
}

/** A checkpoint whose file is open: its tensors are read, and verified, when they are asked for. */
export interface OpenCheckpoint<Meta extends RunMeta = RunMeta> {
  /** Its path. */
  readonly file: string;
  /** The name of the task that wrote it. */
  readonly task: string;
  /** How far the run is, and by which options. */
  readonly meta: Meta;
  /** By their names, in PyTorch's layout. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** A checkpoint that has been read. */
export interface Checkpoint<Meta extends RunMeta = RunMeta> extends Omit<OpenCheckpoint<Meta>, "tensors"> {
  /** By their names, in PyTorch's layout. */
  readonly tensors: StateValues;
}

/** A checkpoint cannot be saved, or is not one that this run can go on from. */
export class CheckpointError extends Data.Error<{
  readonly subject: string;
  readonly action: "save" | "load" | "resume from" | "start from";
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "CheckpointError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** Action, file and reason as a sentence. */
  override get message(): string {
    const what = this.action === "start from" ? "" : "checkpoint ";
    return `Cannot ${this.action} ${what}"${this.subject}": ${this.reason}`;
  }
}

const FORMAT = "slotcon-checkpoint/2";
/** The task of checkpoints that name none, which are older than the others. */
const FIRST_TASK = "pretrain";
const AnyMeta: Schema.Codec<RunMeta, unknown> = Schema.StructWithRest(
  Schema.Struct({ step: Schema.Int, config: Schema.Record(Schema.String, Schema.Unknown) }),
  [Schema.Record(Schema.String, Schema.Unknown)],
);
const ChecksumsJson = Schema.fromJsonString(Schema.Record(Schema.String, Schema.String));

/** The folder of a run's checkpoints. */
export const checkpointFolder = (runFolder: string): string => join(runFolder, "checkpoints");

/** The name of the checkpoint after `step` steps. */
export const checkpointName = (step: number): string => `step_${String(step).padStart(6, "0")}.safetensors`;

/** The name of a run's best checkpoint, by its scores on validation images. */
export const BEST_CHECKPOINT = "best.safetensors";

/** The step after which a checkpoint of this name was saved, or null where the name is not that of a checkpoint. */
export const savedStep = (name: string): number | null => {
  const digits = name.match(/^step_(\d+)\.safetensors$/)?.[1];
  return digits === undefined ? null : Number(digits);
};

/**
 * Saves a checkpoint of a task in the folder of a run and reads it back. It becomes the current one, unless it is saved
 * as the `best` one, beside those that the run goes on from. Returns its path. Yields to other work in between. Fails with a `CheckpointError` when it cannot be written, say onto a full disk, or is
 * not the same when it is read back; older checkpoints are then as they were.
 */
export const saveCheckpoint: <Meta extends RunMeta>(
  runFolder: string,
  task: Task<Meta>,
  checkpoint: Pick<Checkpoint<Meta>, "meta" | "tensors">,
  best?: boolean,
) => Effect.Effect<string, CheckpointError> = Effect.fn("saveCheckpoint")(
  function* <Meta extends RunMeta>(
    runFolder: string,
    task: Task<Meta>,
    { meta, tensors }: Pick<Checkpoint<Meta>, "meta" | "tensors">,
    best = false,
  ) {
    const folder = checkpointFolder(runFolder);
    const name = best ? BEST_CHECKPOINT : checkpointName(meta.step);
    const file = join(folder, name);
    const pieces = yield* checkpointPieces(task, { meta, tensors });

    yield* Effect.gen(function* () {
      yield* Effect.tryPromise({
        try: () => Deno.mkdir(folder, { recursive: true }),
        catch: (e) => e as Error,
      });
      yield* writeWholeFile(file, pieces);
      yield* verifyCheckpoint(file).pipe(
        Effect.tapError(() => Effect.promise(() => Deno.remove(file).catch(() => {}))),
        Effect.mapError(({ reason }) =>
          new Error(`it was written, but is not the same when read again: ${reason}`)
        ),
      );
      if (best) return;
      yield* writeWholeFile(join(folder, "current"), [new TextEncoder().encode(`${name}\n`)]);
    }).pipe(
      Effect.mapError(({ message }) =>
        new CheckpointError({ subject: file, action: "save", reason: message })
      ),
    );
    return file;
  },
);

/** The bytes of a checkpoint of a task, in pieces. The same state and meta give the same bytes. */
export const checkpointPieces: <Meta extends RunMeta>(
  task: Task<Meta>,
  checkpoint: Pick<Checkpoint<Meta>, "meta" | "tensors">,
) => Effect.Effect<readonly Uint8Array<ArrayBuffer>[]> = Effect.fnUntraced(
  function* <Meta extends RunMeta>(
    task: Task<Meta>,
    { meta, tensors }: Pick<Checkpoint<Meta>, "meta" | "tensors">,
  ) {
    const named = new Map<string, FileTensor>();
    const checksums: Record<string, string> = {};
    for (const [name, tensor] of [...tensors].sort(([a], [b]) => a < b ? -1 : 1)) {
      const stored = fileTensor(name, tensor);
      named.set(name, stored);
      checksums[name] = sha256(stored.data);
      yield* Effect.yieldNow;
    }
    const metadata = {
      format: FORMAT,
      task: task.name,
      meta: yield* Effect.orDie(Schema.encodeEffect(Schema.fromJsonString(task.meta))(meta)),
      checksums: JSON.stringify(checksums),
    };
    return writeSafetensors(named, { ...metadata, sha256: headerChecksum(named, metadata) });
  },
);

const sha256 = (data: string | FileArray): string =>
  createHash("sha256").update(data as NodeJS.ArrayBufferView | string).digest("hex");

/** Of everything but the values, whose own checksums are part of it. */
const headerChecksum = (
  tensors: ReadonlyMap<string, Pick<StoredTensor, "dtype" | "shape">>,
  metadata: Readonly<Record<string, string>>,
): string => {
  const shapes = [...tensors].map(([name, { dtype, shape }]) => `${name} ${dtype} ${shape.join()}`).sort();
  const entries = Object.entries(metadata).map(([key, value]) => `${key} ${value}`).sort();
  return sha256(JSON.stringify([shapes, entries]));
};

/**
 * Opens a checkpoint until the scope ends, and verifies all but its values; those are verified as they are read. Fails
 * with a `CheckpointError` that says what is wrong with the file, or that it is of another task than `task`; without one,
 * a checkpoint of any task is opened.
 */
export const openCheckpoint: <Meta extends RunMeta = RunMeta>(
  file: string,
  task?: Task<Meta>,
) => Effect.Effect<OpenCheckpoint<Meta>, CheckpointError, Scope.Scope> = Effect.fn("openCheckpoint")(
  function* <Meta extends RunMeta = RunMeta>(
    file: string,
    task?: Task<Meta>,
  ): Effect.fn.Return<OpenCheckpoint<Meta>, CheckpointError, Scope.Scope> {
    const fail = (reason: string) => new CheckpointError({ subject: file, action: "load", reason });
    const { tensors, metadata: { sha256: expected, ...metadata } } = yield* openBytes(file).pipe(
      Effect.flatMap(openSafetensors),
      Effect.mapError(({ reason }) => fail(reason)),
    );
    if (metadata.format !== FORMAT) {
      const found = metadata.format === undefined ? "it names no format" : `its format is ${metadata.format}`;
      return yield* fail(
        `it is a safetensors file, but no checkpoint of a run: ${found}, expected ${FORMAT}`,
      );
    }
    if (headerChecksum(tensors, metadata) !== expected) {
      return yield* fail(
        "its header (names, shapes and metadata) does not match its checksum: it is damaged",
      );
    }
    const found = metadata.task ?? FIRST_TASK;
    if (task !== undefined && found !== task.name) {
      return yield* fail(`this is a checkpoint of ${found}; expected one of ${task.name}`);
    }
    const described = Effect.mapError(({ message }: Schema.SchemaError) =>
      fail(`its description of the run is wrong: ${message}`)
    );
    const schema = (task?.meta ?? AnyMeta) as Schema.Codec<Meta, unknown>;
    const meta = yield* Schema.decodeEffect(Schema.fromJsonString(schema))(metadata.meta).pipe(described);
    const checksums = yield* Schema.decodeEffect(ChecksumsJson)(metadata.checksums).pipe(described);
    const verified = new Map<string, StoredTensor>();
    for (const [name, tensor] of tensors) {
      verified.set(name, { ...tensor, values: verifiedValues(name, tensor, checksums[name], file) });
    }
    return { file, task: found, meta, tensors: verified };
  },
);

const verifiedValues = (
  name: string,
  { values, begin, end }: PlacedTensor,
  checksum: string,
  file: string,
): StoredTensor["values"] =>
  Effect.filterOrFail(
    values,
    (data) => sha256(data) === checksum,
    () =>
      new FormatError({
        subject: file,
        reason: `tensor "${name}" (bytes ${begin} to ${end}) does not match its checksum`,
      }),
  );

/**
 * Reads a checkpoint and verifies all of it. Fails with a `CheckpointError` that says what is wrong with the file, or that
 * it is of another task than `task`; without one, a checkpoint of any task is read.
 */
export const loadCheckpoint: <Meta extends RunMeta = RunMeta>(
  file: string,
  task?: Task<Meta>,
) => Effect.Effect<Checkpoint<Meta>, CheckpointError> = Effect.fn("loadCheckpoint")(
  function* <Meta extends RunMeta = RunMeta>(
    file: string,
    task?: Task<Meta>,
  ): Effect.fn.Return<Checkpoint<Meta>, CheckpointError, Scope.Scope> {
    const { tensors, ...rest } = yield* openCheckpoint(file, task);
    return { ...rest, tensors: yield* readTensors(tensors).pipe(Effect.mapError(damaged)) };
  },
  Effect.scoped,
);

/** Reads a checkpoint, a tensor at a time, and keeps nothing. */
const verifyCheckpoint = Effect.fnUntraced(function* (file: string) {
  const { tensors } = yield* openCheckpoint(file);
  for (const { values } of tensors.values()) {
    yield* values.pipe(Effect.mapError(damaged));
    yield* Effect.yieldNow;
  }
}, Effect.scoped);

/** The checkpoint itself; fails with a `CheckpointError` that names the tensors whose values are not finite. */
export const withFiniteState = <Meta extends RunMeta>(
  checkpoint: Checkpoint<Meta>,
): Effect.Effect<Checkpoint<Meta>, CheckpointError> =>
  expectFiniteValues(
    checkpoint.file,
    checkpoint.tensors as ReadonlyMap<string, { readonly data: Float32Array }>,
  )
    .pipe(Effect.mapError(damaged), Effect.as(checkpoint));

const damaged = ({ subject, reason }: FormatError) =>
  new CheckpointError({
    subject,
    action: "load",
    reason: `${reason}: the file is damaged, use another one`,
  });

/**
 * The newest checkpoint in the folder of a run that can be read and that `check` lets pass, or null if there is none. Damaged
 * ones, and those of another task than `task`, are skipped with a warning; fails with the newest one's `CheckpointError` if all are.
 */
export const latestCheckpoint: <Meta extends RunMeta = RunMeta>(
  runFolder: string,
  task?: Task<Meta>,
  check?: (checkpoint: Checkpoint<Meta>) => Effect.Effect<Checkpoint<Meta>, CheckpointError>,
) => Effect.Effect<Checkpoint<Meta> | null, CheckpointError> = Effect.fn("latestCheckpoint")(
  function* <Meta extends RunMeta = RunMeta>(
    runFolder: string,
    task?: Task<Meta>,
    check: (checkpoint: Checkpoint<Meta>) => Effect.Effect<Checkpoint<Meta>, CheckpointError> =
      Effect.succeed,
  ): Effect.fn.Return<Checkpoint<Meta> | null, CheckpointError> {
    const folder = checkpointFolder(runFolder);
    const files = (yield* checkpointsIn(folder)).map((name) => join(folder, name));
    let newest: CheckpointError | undefined;
    for (const file of files) {
      const loaded = yield* Effect.result(Effect.flatMap(loadCheckpoint(file, task), check));
      if (Result.isSuccess(loaded)) return loaded.success;
      newest ??= loaded.failure;
      yield* Effect.logWarning(`${loaded.failure.message}. Trying the one before it.`);
    }
    return newest === undefined ? null : yield* newest;
  },
);

/** The names of the checkpoints in a folder: the current one first, then the others from the newest on. */
export const checkpointsIn = (folder: string): Effect.Effect<readonly string[]> =>
  Effect.promise(async () => {
    try {
      const names = Array.from(Deno.readDirSync(folder), ({ name }) => name);
      const current = names.includes("current")
        ? (await Deno.readTextFile(join(folder, "current"))).trim()
        : "";
      const saved = names.filter((name) => savedStep(name) !== null);
      const step = (name: string) => name === current ? Infinity : savedStep(name)!;
      return saved.sort((a, b) => step(b) - step(a));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  });

/**
 * Fails with a `CheckpointError` that lists the first differences where a checkpoint's tensors are not those that this
 * run has: another encoder, width, number of prototypes, optimiser.
 */
export const compareState = (
  expected: ReadonlyMap<string, readonly number[]>,
  { file, tensors }: Pick<Checkpoint, "file" | "tensors">,
): Effect.Effect<void, CheckpointError> => {
  const differences: string[] = [];
  for (const [name, shape] of expected) {
    const found = tensors.get(name)?.shape;
    if (found === undefined) differences.push(`it has no ${name}`);
    else if (found.join() !== shape.join()) {
      differences.push(`${name} is [${found.join(", ")}], not [${shape.join(", ")}]`);
    }
  }
  for (const name of tensors.keys()) {
    if (!expected.has(name)) differences.push(`it has a ${name}, which this run has not`);
  }
  if (differences.length === 0) return Effect.void;
  const more = differences.length > 3 ? ` and ${differences.length - 3} more` : "";
  const reason = `it is of another architecture: ${differences.slice(0, 3).join("; ")}${more}`;
  return Effect.fail(new CheckpointError({ subject: file, action: "resume from", reason }));
};
