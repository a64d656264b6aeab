/**
 * Checkpoint files: everything that a run needs to go on as if it had never stopped.
 *
 * A checkpoint is one safetensors file, `checkpoints/step_000123.safetensors` in the run's folder, which any tool can
 * read: parameters, statistics and centre under the published code's names, the optimiser's buffers as `optimizer.<name
 * of the parameter>`. Its metadata has the SHA-256 of every tensor, and of all else. A file is either whole or absent;
 * `checkpoints/current` names the newest one.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect, Result, Schema, type Scope } from "effect";
import { openBytes } from "../../data/files/byte_source.ts";
import { FormatError } from "../../data/files/format_error.ts";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import type { FileArray, FileTensor, StoredTensor } from "../../data/formats/file_tensor.ts";
import { openSafetensors, type PlacedTensor, writeSafetensors } from "../../data/formats/safetensors.ts";
import { Config } from "../pretrain/config.ts";
import { readState } from "./state.ts";
import { fileTensor, type StateValues } from "./state_layout.ts";

/** Where a run stands, besides its tensors. */
export const RunMeta = Schema.Struct({
  step: Schema.Int, // optimiser steps done
  teacherCounter: Schema.Int, // updates of the teacher done: its momentum follows them
  instances: Schema.Int, // pictures of the data set
  config: Config,
});
export type RunMeta = typeof RunMeta.Type;

export interface Checkpoint {
  readonly file: string;
  readonly meta: RunMeta;
  readonly tensors: StateValues; // names and shapes as the published code has them
}

/** A checkpoint whose file is open: its tensors are read, and verified, when they are asked for. */
export interface OpenCheckpoint {
  readonly file: string;
  readonly meta: RunMeta;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** A checkpoint cannot be saved, or is not one that this run can go on from. */
export class CheckpointError extends Schema.TaggedError<CheckpointError>()("CheckpointError", {
  file: Schema.String,
  action: Schema.Literals(["save", "load", "resume from", "start from"]),
  reason: Schema.String,
}) {
  override get message() {
    const what = this.action === "start from" ? "" : "checkpoint ";
    return `Cannot ${this.action} ${what}"${this.file}": ${this.reason}`;
  }
}

const FORMAT = "slotcon-checkpoint/2";
const MetaJson = Schema.fromJsonString(RunMeta);
const ChecksumsJson = Schema.fromJsonString(Schema.Record(Schema.String, Schema.String));

/** The folder of a run's checkpoints. */
export const checkpointFolder = (runFolder: string) => join(runFolder, "checkpoints");

/** The step that a file of this name was saved after, or null where it is none of ours. */
export const savedStep = (name: string): number | null => {
  const digits = name.match(/^step_(\d+)\.safetensors$/)?.[1];
  return digits === undefined ? null : Number(digits);
};

/**
 * Saves a checkpoint in the folder of a run, reads it back, and makes it the current one. Returns its path. Other work
 * goes on in between. Fails with a `CheckpointError` when it cannot be written, say onto a full disk, or is not what it
 * should be when it is read again; older checkpoints are then as they were.
 */
export const saveCheckpoint = Effect.fn("saveCheckpoint")(
  function* (runFolder: string, { meta, tensors }: Pick<Checkpoint, "meta" | "tensors">) {
    const folder = checkpointFolder(runFolder);
    const name = `step_${String(meta.step).padStart(6, "0")}.safetensors`;
    const file = join(folder, name);
    const pieces = yield* checkpointPieces({ meta, tensors });

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
      yield* writeWholeFile(join(folder, "current"), [new TextEncoder().encode(`${name}\n`)]);
    }).pipe(
      Effect.mapError(({ message }) => new CheckpointError({ file, action: "save", reason: message })),
    );
    return file;
  },
);

/** The bytes of a checkpoint, in pieces. */
export const checkpointPieces = Effect.fnUntraced(
  function* ({ meta, tensors }: Pick<Checkpoint, "meta" | "tensors">) {
    const named = new Map<string, FileTensor>();
    const checksums: Record<string, string> = {};
    for (const [name, tensor] of [...tensors].sort(([a], [b]) => a < b ? -1 : 1)) { // the same state, the same bytes
      const stored = fileTensor(name, tensor);
      named.set(name, stored);
      checksums[name] = sha256(stored.data);
      yield* Effect.yieldNow;
    }
    const metadata = {
      format: FORMAT,
      meta: yield* Effect.orDie(Schema.encodeEffect(MetaJson)(meta)),
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
 * with a `CheckpointError` that says what is wrong with the file.
 */
export const openCheckpoint = Effect.fn("openCheckpoint")(
  function* (file: string): Effect.fn.Return<OpenCheckpoint, CheckpointError, Scope.Scope> {
    const fail = (reason: string) => new CheckpointError({ file, action: "load", reason });
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
    const described = Effect.mapError(({ message }: Schema.SchemaError) =>
      fail(`its description of the run is wrong: ${message}`)
    );
    const meta = yield* Schema.decodeEffect(MetaJson)(metadata.meta).pipe(described);
    const checksums = yield* Schema.decodeEffect(ChecksumsJson)(metadata.checksums).pipe(described);
    const verified = new Map<string, StoredTensor>();
    for (const [name, tensor] of tensors) {
      verified.set(name, { ...tensor, values: verifiedValues(name, tensor, checksums[name], file) });
    }
    return { file, meta, tensors: verified };
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
        file,
        reason: `tensor "${name}" (bytes ${begin} to ${end}) does not match its checksum`,
      }),
  );

/** Reads a checkpoint and verifies all of it. Fails with a `CheckpointError` that says what is wrong with the file. */
export const loadCheckpoint = Effect.fn("loadCheckpoint")(
  function* (file: string): Effect.fn.Return<Checkpoint, CheckpointError, Scope.Scope> {
    const { meta, tensors } = yield* openCheckpoint(file);
    const values = yield* readState(tensors).pipe(Effect.mapError(damaged));
    return { file, meta, tensors: values };
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

const damaged = ({ file, reason }: FormatError) =>
  new CheckpointError({ file, action: "load", reason: `${reason}: the file is damaged, use another one` });

/**
 * The newest checkpoint in the folder of a run that can be read, or null if there is none. Damaged ones are skipped with
 * a warning; fails with the newest one's `CheckpointError` if all are.
 */
export const latestCheckpoint = Effect.fn("latestCheckpoint")(
  function* (runFolder: string): Effect.fn.Return<Checkpoint | null, CheckpointError> {
    const folder = checkpointFolder(runFolder);
    const files = (yield* checkpointsIn(folder)).map((name) => join(folder, name));
    let newest: CheckpointError | undefined;
    for (const file of files) {
      const loaded = yield* Effect.result(loadCheckpoint(file));
      if (Result.isSuccess(loaded)) return loaded.success;
      newest ??= loaded.failure;
      yield* Effect.logWarning(`${loaded.failure.message}. Trying the one before it.`);
    }
    return newest === undefined ? null : yield* newest;
  },
);

/** The names of the checkpoints in a folder: the current one first, then the others from the newest on. */
export const checkpointsIn = (folder: string) =>
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
  return Effect.fail(new CheckpointError({ file, action: "resume from", reason }));
};
