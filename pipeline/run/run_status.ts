/**
 * How a run is doing or how it ended: `run.json` in its folder. The process of the run keeps that file locked, and the
 * system releases the lock when the process ends, however it ends: a record without an end and without a lock is that
 * of a run that was killed.
 */
import { join } from "node:path";
import { Data, Effect, type Scope } from "effect";
import { match } from "ts-pattern";
import { isFile, statOf } from "../../data/files/exists.ts";

/** The name of the file in the folder of a run. */
export const STATUS_FILE = "run.json";

/** How a run ended. */
export type Ending =
  /** All of its steps are done. */
  | { readonly kind: "finished" }
  /** It was told to stop, by Ctrl-C or a signal, and has saved what was done. */
  | { readonly kind: "stopped" }
  /** It could not go on; `reason` is the sentence that it ended with. */
  | { readonly kind: "failed"; readonly reason: string };

/** How a run is doing or how it ended, and when (ISO 8601). */
export type RunStatus =
  | { readonly kind: "running"; readonly process: string }
  | (Ending & { readonly at: string })
  /** Its process ended without a word. */
  | { readonly kind: "killed"; readonly process: string };

/** A status in words. */
export const statusInWords = (status: RunStatus): string =>
  match(status)
    .with({ kind: "running" }, ({ process }) => `running${process === "" ? "" : ` (${process})`}`)
    .with({ kind: "finished" }, ({ at }) => `finished at ${at}`)
    .with({ kind: "stopped" }, ({ at }) => `stopped at ${at}`)
    .with({ kind: "failed" }, ({ at, reason }) => `failed at ${at}: ${reason}`)
    .with({ kind: "killed" }, ({ process }) => `killed, or its machine stopped (${process})`)
    .exhaustive();

/** What `run.json` says. */
interface RunRecord {
  readonly pid: number;
  readonly host: string;
  readonly started: string;
  readonly ended?: Ending & { readonly at: string };
}

/** Another process trains into this folder. */
export class FolderInUseError extends Data.Error<{
  readonly folder: string;
  /** The process, in words; empty where it is not known. */
  readonly by: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "FolderInUseError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    const by = this.by === "" ? "" : ` (${this.by})`;
    return `Another run is writing into "${this.folder}"${by}: wait until it ends, or choose another --output-dir`;
  }
}

/** The lock of a run's folder. */
export interface FolderLock {
  /**
   * Takes the lock, creating the file where it is missing; the folder must exist. Does nothing where it is held
   * already. Fails with a `FolderInUseError`; throws what the system says where the file cannot be opened.
   */
  readonly take: Effect.Effect<void, FolderInUseError>;
  /** Records that a run begins, over the record of an earlier run. Does nothing without the lock. */
  readonly begin: () => void;
  /** Records how it ended. */
  readonly end: (ending: Ending) => void;
}

/** Times that a lock is tried, and milliseconds between them: whoever asks for a status holds it for a moment. */
const TRIES = 10, WAIT = 50;

/** The lock of the folder of a run, which is held until the scope ends; it is taken at once where the folder exists. */
export const folderLock: (
  folder: string,
) => Effect.Effect<FolderLock, FolderInUseError, Scope.Scope> = Effect.fnUntraced(function* (folder) {
  const path = join(folder, STATUS_FILE);
  let held: Deno.FsFile | null = null;
  let record: RunRecord = { pid: Deno.pid, host: hostname(), started: now() };
  yield* Effect.addFinalizer(() => Effect.sync(() => held?.close()));
  const take = Effect.gen(function* () {
    if (held !== null) return;
    const file = Deno.openSync(path, { read: true, write: true, create: true });
    for (let tries = 1; !locks(file, true); tries++) {
      if (tries === TRIES) {
        const by = processOf(readRecord(file));
        file.close();
        return yield* new FolderInUseError({ folder, by });
      }
      yield* Effect.sleep(WAIT);
    }
    held = file;
  });
  const write = () => {
    try {
      if (held !== null) overwrite(held, `${JSON.stringify(record, null, 2)}\n`);
    } catch {
      // The disk is full: log.txt has told, and the status of the run is not worth its end.
    }
  };
  if (statOf(folder)?.isDirectory) yield* Effect.suspend(() => take);
  return {
    take,
    begin: () => {
      record = { pid: record.pid, host: record.host, started: now() };
      write();
    },
    end: (ending) => {
      record = { ...record, ended: { ...ending, at: now() } };
      write();
    },
  };
});

/** How the run in a folder is doing or how it ended; null where the folder does not say. */
export const runStatus = (folder: string): RunStatus | null => {
  const path = join(folder, STATUS_FILE);
  if (!isFile(path)) return null;
  try {
    using file = Deno.openSync(path);
    const free = locks(file, false);
    const record = readRecord(file);
    if (!free) return { kind: "running", process: processOf(record) };
    if (record === null) return null;
    return record.ended ?? { kind: "killed", process: processOf(record) };
  } catch {
    return null; // it may not be read
  }
};

/** Takes a lock that other processes respect; false where one of them holds it. */
const locks = (file: Deno.FsFile, exclusive: boolean): boolean => {
  try {
    return file.tryLockSync(exclusive);
  } catch {
    return true; // a file system without locks: better an unguarded run than none
  }
};

/** Bytes of `run.json` that are read: a sentence and some numbers. */
const LONGEST = 65536;

const readRecord = (file: Deno.FsFile): RunRecord | null => {
  const bytes = new Uint8Array(LONGEST);
  file.seekSync(0, Deno.SeekMode.Start);
  const length = file.readSync(bytes) ?? 0;
  try {
    const { pid, host, started, ended } = JSON.parse(new TextDecoder().decode(bytes.subarray(0, length)));
    const kinds: readonly unknown[] = ["finished", "stopped", "failed"];
    return {
      pid: Number(pid),
      host: String(host),
      started: String(started),
      ...kinds.includes(ended?.kind)
        ? { ended: { kind: ended.kind, reason: String(ended.reason ?? ""), at: String(ended.at) } }
        : {},
    };
  } catch {
    return null; // a run that has not begun yet, or another program's file
  }
};

/** Writes in place, since the lock is the file's: the new text first, then the end of the file. */
const overwrite = (file: Deno.FsFile, text: string) => {
  const bytes = new TextEncoder().encode(text);
  file.seekSync(0, Deno.SeekMode.Start);
  for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
  file.truncateSync(bytes.length);
  file.syncDataSync();
};

const processOf = (record: RunRecord | null): string =>
  record === null ? "" : `process ${record.pid} on ${record.host}, since ${record.started}`;

const hostname = (): string => {
  try {
    return Deno.hostname();
  } catch {
    return "this machine"; // its name may not be asked for
  }
};

const now = () => new Date().toISOString();
