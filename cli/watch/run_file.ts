/**
 * Reading files of run folders, which anybody may have filled: only regular files inside their folder are opened, and
 * nothing waits for a file that does not answer.
 */
import { constants, promises } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { join, sep } from "node:path";

/** A file of a run's folder that is not read; the message says why. */
export class UnreadableFileError extends Error {}

export interface OpenFile {
  readonly handle: FileHandle;
  readonly size: number; // bytes
  readonly identity: string; // of the file itself, whatever it is called
  readonly modified: number; // milliseconds since 1970
}

// A pipe that takes the file's place at the last moment is opened without waiting for its other end.
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/**
 * Opens a file of a folder, for `use` only; null where there is none. Links are followed within the folder alone. Throws
 * an `UnreadableFileError` for a folder, a pipe, a device, a link that leads out, and for what may not be read.
 */
export const withFileInside = async <A>(
  folder: string,
  name: string,
  use: (file: OpenFile) => Promise<A>,
): Promise<A | null> => {
  const path = await pathInside(folder, name);
  if (path === null) return null;
  let handle: FileHandle | null = null;
  try {
    const before = await promises.lstat(path);
    if (!before.isFile()) throw refusal(name, `is ${kindOf(before)}, expected a file`);
    handle = await promises.open(path, FLAGS);
    const { ino, dev, size, mtimeMs } = await handle.stat();
    if (ino !== before.ino || dev !== before.dev) return null; // another has just taken its place: next time
    return await use({ handle, size, identity: `${dev} ${ino}`, modified: mtimeMs });
  } catch (error) {
    if (isMissing(error)) return null;
    throw error instanceof UnreadableFileError ? error : refusal(name, `cannot be read: ${reasonOf(error)}`);
  } finally {
    await handle?.close();
  }
};

/** Where the file really is; null where there is none. */
const pathInside = async (folder: string, name: string): Promise<string | null> => {
  let [root, path] = ["", ""];
  try {
    root = await Deno.realPath(folder);
    path = await Deno.realPath(join(folder, name));
  } catch (error) {
    if (root !== "" && await isLink(join(folder, name))) {
      throw refusal(
        name,
        isMissing(error) ? "is a link to a file that is not there" : "is a link that leads to itself",
      );
    }
    if (isMissing(error)) return null;
    throw refusal(name, `cannot be read: ${reasonOf(error)}`);
  }
  if (!path.startsWith(root + sep)) throw refusal(name, "is a link that leads out of the run's folder");
  return path;
};

const refusal = (name: string, reason: string) => new UnreadableFileError(`${name} ${reason}`);

const isLink = (path: string) => promises.lstat(path).then((found) => found.isSymbolicLink(), () => false);

const codeOf = (error: unknown) => (error as { code?: string }).code;
const isMissing = (error: unknown) => ["ENOENT", "ENOTDIR"].includes(codeOf(error) ?? "");
const reasonOf = (error: unknown) =>
  codeOf(error) === "EACCES" ? "this user may not" : (error as Error).message.split(",")[0];

const kindOf = (stat: Awaited<ReturnType<typeof promises.lstat>>): string =>
  stat.isDirectory()
    ? "a folder"
    : stat.isFIFO()
    ? "a named pipe"
    : stat.isSocket()
    ? "a socket"
    : "a device";

/** Reads a stretch of a file; less where the file ends before. */
export const readBytes = async (
  { handle }: OpenFile,
  offset: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> => {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await handle.read(bytes, filled, length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
};

/** What a file in a folder holds; null where there is none, where it is not to be read, or longer than `most` bytes. */
export const readInside = (
  folder: string,
  name: string,
  most: number,
): Promise<Uint8Array<ArrayBuffer> | null> =>
  withFileInside(
    folder,
    name,
    (file) => file.size > most ? Promise.resolve(null) : readBytes(file, 0, file.size),
  ).catch(() => null);

/** What `work` gives, or `otherwise` where that takes longer than so many milliseconds. */
export const within = async <A, B>(milliseconds: number, work: Promise<A>, otherwise: B): Promise<A | B> => {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<B>((resolve) => timer = setTimeout(resolve, milliseconds, otherwise));
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
};

const PATIENCE = 5000; // milliseconds that a file may keep the others waiting
let turn: Promise<unknown> = Promise.resolve();

/** Does one piece of work after the other, so that they share memory and processor, and no run's files hold up others. */
export const inTurn = <A>(work: () => Promise<A>): Promise<A> => {
  const done = turn.then(work);
  turn = within(PATIENCE, done.catch(() => {}), undefined);
  return done;
};
