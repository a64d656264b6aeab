/**
 * Checkpoints: everything that a run needs to go on as if it had never stopped.
 *
 * A checkpoint is one safetensors file, `checkpoints/step_000123.safetensors` in the run's folder, which any tool can
 * read. It is either whole or absent and carries a checksum of all it holds; `checkpoints/current` names the newest one.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect, Result, Schema } from "effect";
import type { FileTensor } from "../data/formats/file_tensor.ts";
import { readSafetensors, writeSafetensors } from "../data/formats/safetensors.ts";
import { writeWholeFile } from "../data/write_whole_file.ts";
import { Config } from "./config.ts";
import type { StateValues } from "./state.ts";

/** Where a run stands, besides its tensors. */
export const RunMeta = Schema.Struct({
  step: Schema.Int, // optimiser steps done
  teacherCounter: Schema.Int, // updates of the teacher done: its momentum follows them
  config: Config,
});
export type RunMeta = typeof RunMeta.Type;

export interface Checkpoint {
  readonly file: string;
  readonly meta: RunMeta;
  readonly tensors: StateValues; // names and shapes as the published code has them
}

/** A checkpoint cannot be saved, or is not one that this run can go on from. */
export class CheckpointError extends Schema.TaggedError<CheckpointError>()("CheckpointError", {
  file: Schema.String,
  action: Schema.Literals(["save", "load", "resume from"]),
  reason: Schema.String,
}) {
  override get message() {
    return `Cannot ${this.action} checkpoint "${this.file}": ${this.reason}`;
  }
}

const FORMAT = "slotcon-checkpoint/1";
const MetaJson = Schema.fromJsonString(RunMeta);

/**
 * Saves a checkpoint in the folder of a run and makes it the current one. Returns its path. Fails with a
 * `CheckpointError` when it cannot be written, say onto a full disk; older checkpoints are then as they were.
 */
export const saveCheckpoint = Effect.fn("saveCheckpoint")(
  function* (runFolder: string, { meta, tensors }: Pick<Checkpoint, "meta" | "tensors">) {
    const folder = join(runFolder, "checkpoints");
    const name = `step_${String(meta.step).padStart(6, "0")}.safetensors`;
    const file = join(folder, name);
    const named = new Map<string, FileTensor>();
    for (const [name, { shape, data }] of tensors) named.set(name, { dtype: "F32", shape, data });
    const metadata = { format: FORMAT, meta: yield* Effect.orDie(Schema.encodeEffect(MetaJson)(meta)) };

    yield* Effect.gen(function* () {
      yield* Effect.tryPromise({
        try: () => Deno.mkdir(folder, { recursive: true }),
        catch: (e) => e as Error,
      });
      yield* writeWholeFile(file, writeSafetensors(named, { ...metadata, sha256: digest(named, metadata) }));
      yield* writeWholeFile(join(folder, "current"), [new TextEncoder().encode(`${name}\n`)]);
    }).pipe(
      Effect.mapError(({ message }) => new CheckpointError({ file, action: "save", reason: message })),
    );
    return file;
  },
);

/** The checksum of a checkpoint: of the file that it would be without its checksum. */
const digest = (tensors: ReadonlyMap<string, FileTensor>, metadata: Record<string, string>): string => {
  const hash = createHash("sha256");
  for (const piece of writeSafetensors(tensors, metadata)) hash.update(piece);
  return hash.digest("hex");
};

/** Reads a checkpoint and verifies its checksum. Fails with a `CheckpointError` that says what is wrong with the file. */
export const loadCheckpoint = Effect.fn("loadCheckpoint")(
  function* (file: string): Effect.fn.Return<Checkpoint, CheckpointError> {
    const fail = (reason: string) => new CheckpointError({ file, action: "load", reason });
    const bytes = yield* Effect.tryPromise({
      try: () => Deno.readFile(file),
      catch: (error) => fail(error instanceof Deno.errors.NotFound ? "there is no such file" : String(error)),
    });
    const { tensors, metadata: { sha256, ...metadata } } = yield* readSafetensors(bytes, file).pipe(
      Effect.mapError(({ reason }) => fail(reason)),
    );
    if (metadata.format !== FORMAT) {
      return yield* fail(
        `it is a safetensors file, but no checkpoint of a run (its format is ${metadata.format})`,
      );
    }
    if (digest(tensors, metadata) !== sha256) {
      return yield* fail("its checksum does not match: the file is damaged, use another one");
    }
    const meta = yield* Schema.decodeEffect(MetaJson)(metadata.meta).pipe(
      Effect.mapError(({ message }) => fail(`its description of the run is wrong: ${message}`)),
    );
    return { file, meta, tensors: tensors as StateValues }; // F32 throughout, since the checksum says that we wrote it
  },
);

/**
 * The newest checkpoint in the folder of a run that can be read, or null if there is none. Damaged ones are skipped with
 * a warning; fails with the newest one's `CheckpointError` if all are.
 */
export const latestCheckpoint = Effect.fn("latestCheckpoint")(
  function* (runFolder: string): Effect.fn.Return<Checkpoint | null, CheckpointError> {
    const folder = join(runFolder, "checkpoints");
    const files = (yield* candidates(folder)).map((name) => join(folder, name));
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

/** The current one first, then the others from the newest on. */
const candidates = (folder: string) =>
  Effect.promise(async () => {
    try {
      const names = Array.from(Deno.readDirSync(folder), ({ name }) => name);
      const current = names.includes("current")
        ? (await Deno.readTextFile(join(folder, "current"))).trim()
        : "";
      const saved = names.filter((name) => /^step_\d+\.safetensors$/.test(name));
      const step = (name: string) => name === current ? Infinity : Number(name.match(/\d+/)![0]);
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
