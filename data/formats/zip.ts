/** Zip archives of stored entries, as PyTorch writes them: read in place, nothing is ever inflated. */
import { crc32 } from "node:zlib";
import { Reader, ZipReader } from "@zip.js/zip.js";
import { Effect } from "effect";
import type { ByteSource } from "../files/byte_source.ts";
import { FormatError, shown } from "../files/format_error.ts";

export interface ZipEntry {
  readonly size: number;
  /** The bytes `begin` to `end`. Fails with a `FormatError` where the entry does not match its checksum. */
  readonly read: (begin: number, end: number) => Effect.Effect<Uint8Array<ArrayBuffer>, FormatError>;
}

const MOST_ENTRIES = 1 << 17; // about as many storages as a pickle can name
const LARGEST_DIRECTORY = 1 << 26; // bytes: five hundred an entry
const CHECKED_AT_ONCE = 1 << 22;
const LOCAL_HEADER = 30; // bytes, before the name

/**
 * The entries of an archive by name.
 *
 * Fails with a `FormatError` where the directory is damaged or ambiguous, an entry is compressed or encrypted, or two
 * entries share a name or bytes. Entries are read when they are asked for; the first read of one checks all of it.
 */
export const openZip = Effect.fn("openZip")(
  function* (source: ByteSource): Effect.fn.Return<ReadonlyMap<string, ZipEntry>, FormatError> {
    const damaged = (reason: string) => new FormatError({ subject: source.name, reason });

    // The library reads the directory; the data it would copy through several streams.
    const { listed, directoryStart } = yield* Effect.tryPromise({
      try: async () => {
        const zip = new ZipReader(new SourceReader(source), { strictness: "balanced" });
        const listed: Listed[] = [];
        for await (const entry of zip.getEntriesGenerator()) {
          const { filename: name, offset, uncompressedSize: size, crc32, rawFilename } = entry;
          if (entry.compressionMethod !== 0 || entry.encrypted || entry.compressedSize !== size) {
            throw damaged(`its entry ${shown(name)} is compressed or encrypted, which PyTorch's never are`);
          }
          if (listed.length === MOST_ENTRIES) throw damaged(`it has more than ${MOST_ENTRIES} entries`);
          listed.push({ name, offset, size, crc32, end: offset + LOCAL_HEADER + rawFilename.length + size });
        }
        return { listed, directoryStart: zip.directoryOffset! };
      },
      catch: (error) =>
        error instanceof FormatError
          ? error
          : damaged(`its zip directory is cut short or damaged (${(error as Error).message})`),
    });

    const entries = new Map<string, ZipEntry>();
    listed.sort((a, b) => a.offset - b.offset);
    for (const [index, entry] of listed.entries()) {
      const { name, size, end } = entry;
      if (entries.has(name)) return yield* damaged(`it has two entries ${shown(name)}`);
      const limit = listed[index + 1]?.offset ?? directoryStart;
      if (end > limit) {
        return yield* damaged(`its entry ${shown(name)} overlaps what follows at byte ${limit}`);
      }
      entries.set(name, { size, read: entryReader(source, entry, limit) });
    }
    return entries;
  },
);

/** What is needed of an entry. The library's own entries are a hundred times as large as their line in a directory. */
interface Listed {
  readonly name: string;
  readonly offset: number; // of its header, which the data follow
  readonly size: number;
  readonly crc32: number | undefined;
  readonly end: number; // at least
}

const entryReader = (
  source: ByteSource,
  { name, offset, size, crc32: expected }: Listed,
  limit: number,
): ZipEntry["read"] => {
  const damaged = (reason: string) => new FormatError({ subject: source.name, reason });
  let checked = false;
  const check = (start: number, crc: number) => {
    checked = crc === expected;
    const place = `bytes ${start} to ${start + size}, its entry ${shown(name)}`;
    return checked ? Effect.void : damaged(`${place}, do not match their checksum: it is damaged`);
  };

  return Effect.fnUntraced(function* (begin, end) {
    const header = new DataView((yield* source.read(offset, LOCAL_HEADER)).buffer);
    if (header.getUint32(0) !== 0x504b0304) {
      return yield* damaged(`at byte ${offset} there is no entry ${shown(name)}: it is damaged`);
    }
    const start = offset + LOCAL_HEADER + header.getUint16(26, true) + header.getUint16(28, true);
    if (start + size > limit) {
      return yield* damaged(`its entry ${shown(name)} overlaps what follows at byte ${limit}`);
    }

    if (begin === 0 && end === size) {
      const bytes = yield* source.read(start, size);
      yield* check(start, crc32(bytes));
      return bytes;
    }
    if (!checked) {
      let crc = 0;
      for (let at = 0; at < size; at += CHECKED_AT_ONCE) {
        crc = crc32(yield* source.read(start + at, Math.min(CHECKED_AT_ONCE, size - at)), crc);
      }
      yield* check(start, crc);
    }
    return yield* source.read(start + begin, end - begin);
  });
};

class SourceReader extends Reader<ByteSource> {
  readonly source: ByteSource;

  constructor(source: ByteSource) {
    super(source);
    this.source = source;
    this.size = source.size;
  }

  override readUint8Array(index: number, length: number): Promise<Uint8Array> {
    if (length > LARGEST_DIRECTORY) throw new Error(`it claims ${length} bytes`);
    return Effect.runPromise(this.source.read(index, Math.max(0, Math.min(length, this.size - index))));
  }
}
