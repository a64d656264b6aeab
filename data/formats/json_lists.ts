/**
 * The lists in a large JSON object, entry by entry, without building the object: annotation files have hundreds of
 * megabytes, as values in memory up to twenty times as many. Each entry is parsed when it is asked for, and may be
 * dropped afterwards.
 *
 *     { "images": [{…}, {…}], "annotations": [{…}, …], "info": … }
 */

/** What is wrong with a file that should be such an object; the message says it without the file's name. */
export class JsonListsError extends Error {}

export interface JsonList {
  readonly length: number;
  /** Parses the entry at a place. Throws a `JsonListsError`. */
  readonly at: (place: number) => unknown;
}

const MOST_ENTRIES = 2 ** 24;
const LONGEST_ENTRY = 2 ** 25; // bytes

const code = (character: string) => character.charCodeAt(0);
const QUOTE = code('"'), BACKSLASH = code("\\"), COMMA = code(","), COLON = code(":");
const OPEN = [code("["), code("{")], CLOSE = [code("]"), code("}")];

/**
 * Finds the lists among the values of an object. Other values are passed over, and so is what is wrong inside of them.
 * Time grows with the bytes, memory with the number of entries. Throws a `JsonListsError` where this is no object, is
 * cut short, or has too many entries.
 */
export const jsonLists = (
  bytes: Uint8Array,
  mostEntries: number = MOST_ENTRIES,
): ReadonlyMap<string, JsonList> => {
  const lists = new Map<string, JsonList>();
  const fail = (at: number, expected: string): never => {
    throw new JsonListsError(
      at >= bytes.length
        ? `it is no whole JSON file: it ends at byte ${bytes.length}, where ${expected} is expected`
        : `it is no JSON object: at byte ${at} ${expected} is expected`,
    );
  };
  const blanksEnd = (at: number): number => {
    while (bytes[at] === 0x20 || bytes[at] === 0x0a || bytes[at] === 0x0d || bytes[at] === 0x09) at++;
    return at;
  };
  const stringEnd = (at: number): number => {
    for (let i = at + 1; i < bytes.length; i++) {
      if (bytes[i] === BACKSLASH) i++;
      else if (bytes[i] === QUOTE) return i + 1;
    }
    return fail(bytes.length, "the end of a text");
  };
  /** Where the value ends that begins at a byte, by its brackets. */
  const valueEnd = (at: number): number => {
    if (bytes[at] === QUOTE) return stringEnd(at);
    if (!OPEN.includes(bytes[at])) {
      let end = at;
      while (end < bytes.length && bytes[end] !== COMMA && !CLOSE.includes(bytes[end])) end++;
      return end > at ? end : fail(at, "a value");
    }
    let depth = 0;
    for (let i = at; i < bytes.length; i++) {
      const byte = bytes[i];
      if (byte === QUOTE) i = stringEnd(i) - 1;
      else if (byte === OPEN[0] || byte === OPEN[1]) depth++;
      else if ((byte === CLOSE[0] || byte === CLOSE[1]) && --depth === 0) return i + 1;
    }
    return fail(bytes.length, "a closing bracket");
  };
  /** Members of a list or object up to its closing bracket; `member` returns where one ends. */
  const members = (at: number, bracket: number, member: (at: number) => number): number => {
    at = blanksEnd(at + 1);
    if (bytes[at] === CLOSE[bracket]) return at + 1;
    for (;;) {
      at = blanksEnd(member(at));
      if (bytes[at] === CLOSE[bracket]) return at + 1;
      if (bytes[at] !== COMMA) fail(at, "a comma or a closing bracket");
      at = blanksEnd(at + 1);
    }
  };

  const start = blanksEnd(bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0);
  if (bytes[start] !== OPEN[1]) fail(start, 'an object, "{",');
  const end = members(start, 1, (at) => {
    if (bytes[at] !== QUOTE) fail(at, "a name in quotes");
    const nameEnd = stringEnd(at);
    const name = String(parsed(bytes, at, nameEnd, "a name"));
    at = blanksEnd(nameEnd);
    if (bytes[at] !== COLON) fail(at, "a colon");
    at = blanksEnd(at + 1);
    if (bytes[at] !== OPEN[0]) return valueEnd(at);
    const begins: number[] = [], ends: number[] = [];
    const listEnd = members(at, 0, (entry) => {
      if (begins.length === mostEntries) {
        throw new JsonListsError(
          `it has more than ${mostEntries} entries in ${JSON.stringify(name.slice(0, 100))}`,
        );
      }
      begins.push(entry);
      ends.push(valueEnd(entry));
      return ends[ends.length - 1];
    });
    lists.set(name, {
      length: begins.length,
      at: (place) => parsed(bytes, begins[place], ends[place], `entry ${place + 1} of "${name}"`),
    });
    return listEnd;
  });
  const rest = blanksEnd(end);
  if (rest < bytes.length) fail(rest, "the end of the file");
  return lists;
};

const parsed = (bytes: Uint8Array, begin: number, end: number, what: string): unknown => {
  if (end - begin > LONGEST_ENTRY) {
    throw new JsonListsError(`${what} has ${end - begin} bytes, at most ${LONGEST_ENTRY} are read`);
  }
  try {
    const text = utf8.decode(bytes.subarray(begin, end));
    try {
      return JSON.parse(text);
    } catch (error) {
      if (!/NaN|Infinity/.test(text)) throw error;
      return JSON.parse(text.replace(NO_NUMBER, (found) => found.startsWith('"') ? found : "null"));
    }
  } catch {
    throw new JsonListsError(`${what}, at byte ${begin}, is no JSON in UTF-8`);
  }
};

const utf8 = new TextDecoder("utf-8", { fatal: true });
/** What Python's `json` writes for numbers that JSON does not have, outside of texts. */
const NO_NUMBER = /"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/g;
