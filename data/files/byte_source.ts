import { Effect, type Scope } from "effect";
import { FormatError } from "./format_error.ts";
import { kindOf } from "./regular_file.ts";

/** Bytes that are read where they lie: of a file however large, or of an array. */
export interface ByteSource {
  /** The file's path, for errors. */
  readonly name: string;
  readonly size: number;
  /** `length` bytes from `offset` on, to be changed at will. Fails with a `FormatError` where there are not as many. */
  readonly read: (offset: number, length: number) => Effect.Effect<Uint8Array<ArrayBuffer>, FormatError>;
}

/** Opens a file until the scope ends. Fails with a `FormatError` where it is missing, a folder or not readable. */
export const openBytes = Effect.fn("openBytes")(
  function* (path: string): Effect.fn.Return<ByteSource, FormatError, Scope.Scope> {
    const refuse = (error: unknown) => {
      if (error instanceof Deno.errors.NotFound) return fail("there is no such file");
      if (error instanceof Deno.errors.IsADirectory) return fail("it is a folder");
      if (error instanceof Deno.errors.NotCapable) return fail("it is outside of what this command may read");
      return fail((error as Error).message);
    };
    const fail = (reason: string) => new FormatError({ subject: path, reason });
    const info = yield* Effect.try({ try: () => Deno.statSync(path), catch: refuse });
    if (info.isDirectory) return yield* fail("it is a folder");
    if (!info.isFile) return yield* fail(`it is ${kindOf(info)}, not a file`); // opening a pipe would block
    const file = yield* Effect.acquireRelease(
      Effect.try({ try: () => Deno.openSync(path), catch: refuse }),
      (file) => Effect.sync(() => file.close()),
    );
    const { size } = yield* Effect.try({ try: () => file.statSync(), catch: refuse });

    // Moving to a place and reading there must not be torn apart by another reader: hence the synchronous calls.
    const read = (offset: number, length: number): Uint8Array<ArrayBuffer> => {
      const bytes = new Uint8Array(length);
      file.seekSync(offset, Deno.SeekMode.Start);
      for (let filled = 0; filled < length;) {
        const count = file.readSync(bytes.subarray(filled));
        if (count === null) throw new Error(`it ends at byte ${offset + filled}, while it is being read`);
        filled += count;
      }
      return bytes;
    };
    return {
      name: path,
      size,
      read: (offset, length) =>
        outside(size, offset, length)
          ? Effect.fail(fail(endsBefore(size, offset, length)))
          : Effect.try({ try: () => read(offset, length), catch: refuse }),
    };
  },
);

/** An array as a source; what is read from it are copies. */
export const bytesInMemory = (name: string, bytes: Uint8Array): ByteSource => ({
  name,
  size: bytes.length,
  read: (offset, length) =>
    outside(bytes.length, offset, length)
      ? Effect.fail(new FormatError({ subject: name, reason: endsBefore(bytes.length, offset, length) }))
      : Effect.succeed(new Uint8Array(bytes.subarray(offset, offset + length))),
});

// Before anything is reserved: a damaged file may claim any length.
const outside = (size: number, offset: number, length: number) =>
  !(offset >= 0 && length >= 0 && offset + length <= size);

const endsBefore = (size: number, offset: number, length: number) =>
  `it has ${size} bytes, bytes ${offset} to ${
    offset + length
  } were expected in it: it was cut short or is damaged`;
