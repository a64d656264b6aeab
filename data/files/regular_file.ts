/**
 * Whole files of a bounded size, from paths that somebody else chose. A named pipe, a device, a socket or a folder is
 * told by its kind and never opened: opening a pipe waits for a writer, and a device may be read without end.
 */

export interface Reading {
  /** Bytes that the file may have at most. */
  readonly largest: number;
  /** Looks at the first 4 KiB of a large file before the rest is read; gives a reason to refuse it, or null. */
  readonly refuse?: (beginning: Uint8Array) => string | null;
}

/**
 * Reads a file. Rejects with an `Error` whose message says what is wrong with the file, without its path; what the
 * system says is the beginning of the message of `systemReason`.
 */
export const readRegularFile = async (
  path: string,
  { largest, refuse = () => null }: Reading,
): Promise<Uint8Array<ArrayBuffer>> => {
  const info = await attempt(() => Deno.stat(path));
  if (!info.isFile) throw new Error(`it is ${kindOf(info)}, not a file`);
  if (info.size > largest) throw new Error(`it has ${info.size} bytes, at most ${largest} are read`);
  if (info.size <= SMALL) return await attempt(() => Deno.readFile(path));
  using file = await attempt(() => Deno.open(path));
  const bytes = new Uint8Array(info.size);
  let filled = await fill(file, bytes, 0, HEAD);
  const reason = refuse(bytes.subarray(0, filled));
  if (reason !== null) throw new Error(reason);
  filled = await fill(file, bytes, filled, info.size);
  return filled === info.size ? bytes : bytes.slice(0, filled);
};

/** Smaller files are read at once: looking at their beginning first would cost more than it saves. */
const SMALL = 2 ** 18;
const HEAD = 4096;

const fill = async (file: Deno.FsFile, bytes: Uint8Array, from: number, to: number): Promise<number> => {
  while (from < to) {
    const count = await attempt(() => file.read(bytes.subarray(from, to)));
    if (count === null) break; // it was cut short meanwhile
    from += count;
  }
  return from;
};

const attempt = async <A>(action: () => Promise<A>): Promise<A> => {
  try {
    return await action();
  } catch (error) {
    throw new Error(systemReason(error));
  }
};

/** Why the system does not give a file: its own words, without the path, which Deno repeats. */
export const systemReason = (error: unknown): string => {
  if (error instanceof Deno.errors.NotCapable) return "it is outside of what this command may read";
  const words = error instanceof Error ? error.message : String(error);
  return `it cannot be read (${words.split(": ")[0]})`;
};

/** What is at a path, with its article, for a sentence. */
export const kindOf = (info: Deno.FileInfo): string => {
  if (info.isFile) return "a file";
  if (info.isDirectory) return "a folder";
  if (info.isFifo) return "a named pipe";
  if (info.isSocket) return "a socket";
  return info.isCharDevice || info.isBlockDevice ? "a device" : "something else";
};

/** An error of the system without Deno's advice on flags, which nobody gives who runs a command. */
export const withoutFlags = (error: unknown): Error => {
  const found = error as Error;
  found.message = found.message.replace(/, run again with the --allow-\S+ flag/, "");
  return found;
};
