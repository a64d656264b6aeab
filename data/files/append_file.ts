/** A file to add to: at once and whole, so that a process that is killed leaves whole additions. */
export interface AppendFile extends Disposable {
  /** Adds bytes at the end. While the disk is full they wait in memory. */
  readonly add: (bytes: Uint8Array) => void;
  /** Whether bytes wait in memory. */
  readonly waits: () => boolean;
  /** Brings all of it onto the disk. Throws while that is full. */
  readonly sync: () => void;
}

/** Opens a file to add to, and creates it where it is missing. Throws what the system says, as do the functions. */
export const openAppendFile = (path: string): AppendFile => {
  const file = Deno.openSync(path, { append: true, create: true });
  let waiting = new Uint8Array(0);
  const push = () => {
    try {
      while (waiting.length > 0) waiting = waiting.subarray(file.writeSync(waiting));
    } catch (error) {
      if (!isDiskFull(error)) throw error;
    }
  };
  return {
    add: (bytes) => {
      waiting = joined(waiting, bytes);
      push();
    },
    waits: () => waiting.length > 0,
    sync: () => {
      push();
      if (waiting.length > 0) throw new Error("the disk is full");
      file.syncDataSync();
    },
    [Symbol.dispose]: () => file.close(),
  };
};

const joined = (a: Uint8Array, b: Uint8Array) => {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
};

const isDiskFull = (error: unknown) => ["ENOSPC", "EDQUOT"].includes((error as { code?: string }).code ?? "");
