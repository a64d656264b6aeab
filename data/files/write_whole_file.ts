import { dirname } from "node:path";
import { Effect } from "effect";

/**
 * Writes a file so that it is either whole or absent, whenever the process or the machine stops: into a file beside it
 * (`path` + ".partial"), onto the disk, then renamed. Pieces are written one after the other.
 *
 * Fails with what the system says (`Deno.errors`, or an `Error` such as a full disk); the old file is then still there.
 */
export const writeWholeFile = (path: string, pieces: readonly Uint8Array[]): Effect.Effect<void, Error> =>
  Effect.tryPromise({
    try: async () => {
      const partial = `${path}.partial`;
      try {
        {
          using file = await Deno.open(partial, { write: true, create: true, truncate: true });
          for (const piece of pieces) await writeAll(file, piece);
          await file.sync();
        }
        await Deno.rename(partial, path);
      } catch (error) {
        await Deno.remove(partial).catch(() => {}); // it may not even exist
        throw error;
      }
      await syncFolder(dirname(path));
    },
    catch: (error) =>
      error instanceof Deno.errors.NotCapable
        ? new Error("it is outside of what this command may write")
        : error as Error,
  }).pipe(Effect.uninterruptible);

const writeAll = async (file: Deno.FsFile, bytes: Uint8Array) => {
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
};

/** Makes a rename last: on POSIX systems it is the folder that holds the name. */
const syncFolder = async (path: string) => {
  if (Deno.build.os === "windows") return;
  using folder = await Deno.open(path);
  await folder.sync();
};
