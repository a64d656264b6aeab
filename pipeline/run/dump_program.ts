/** Writes the dump of a program (ops/compiler/dump.ts) into a folder. */
import { join } from "node:path";
import { withoutFlags } from "../../data/files/regular_file.ts";
import { Data, Effect } from "effect";

/** A program cannot be dumped into a folder. */
export class DumpError extends Data.Error<{
  readonly folder: string;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "DumpError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done: completes "Cannot …". */
  get subject(): string {
    return `dump the program into "${this.folder}"`;
  }
  /** What to do about it. */
  get remedy(): string {
    return "Name a folder that is empty or does not exist";
  }
  /** Subject, reason and remedy as a sentence or two. */
  override get message(): string {
    return `Cannot ${this.subject}: ${this.reason}. ${this.remedy}`;
  }
}

/** Makes the folder of a dump. Fails with a `DumpError` where it has files already, or cannot be made. */
export const makeDumpFolder = (folder: string): Effect.Effect<void, DumpError> =>
  attempt(folder, () => {
    Deno.mkdirSync(folder, { recursive: true });
    const [entry] = Deno.readDirSync(folder);
    if (entry !== undefined) throw new Error("it is not empty");
  });

/** Writes the files of a dump, texts by name, into a folder. Fails with a `DumpError`. */
export const writeDump = (
  folder: string,
  files: Readonly<Record<string, string>>,
): Effect.Effect<void, DumpError> =>
  attempt(folder, () => {
    for (const [name, text] of Object.entries(files)) Deno.writeTextFileSync(join(folder, name), text);
  });

const attempt = (folder: string, write: () => void): Effect.Effect<void, DumpError> =>
  Effect.try({
    try: write,
    catch: (error) => new DumpError({ folder, reason: withoutFlags(error).message }),
  });
