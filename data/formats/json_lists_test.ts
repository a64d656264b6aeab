import assert from "node:assert/strict";
import { randomStream } from "../random/random.ts";
import { jsonLists } from "./json_lists.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);
const listsOf = (text: string) =>
  Object.fromEntries(
    [...jsonLists(bytesOf(text))].map((
      [name, { length, at }],
    ) => [name, Array.from({ length }, (_, place) => at(place))]),
  );

Deno.test("jsonLists() finds what JSON.parse() does in the lists of an object, however it is written", () => {
  for (let trial = 0; trial < 200; trial++) {
    const random = randomStream(trial);
    const value = (depth: number): unknown => {
      const kind = random.integer(depth > 3 ? 5 : 7);
      if (kind === 0) return null;
      if (kind === 1) return random.integer(2) === 1;
      if (kind === 2) return random.uniform(-1e9, 1e9);
      if (kind <= 4) {
        return ['"', "\\", "]},:", "é\n", "\u{1f600}", ""][random.integer(6)].repeat(random.integer(3));
      }
      const count = random.integer(4);
      if (kind === 5) return Array.from({ length: count }, () => value(depth + 1));
      return Object.fromEntries(Array.from({ length: count }, (_, i) => [`k"${i}`, value(depth + 1)]));
    };
    const object = Object.fromEntries(
      Array.from({ length: random.integer(5) }, (_, i) => [`name ${i}]`, value(0)]),
    );
    const expected = Object.fromEntries(Object.entries(object).filter(([, each]) => Array.isArray(each)));
    for (const indent of [undefined, 2, "\t"]) {
      assert.deepEqual(listsOf(JSON.stringify(object, null, indent)), expected);
    }
  }
  assert.deepEqual(listsOf('\ufeff {"a": [1 , [ ] ]\r\n, "b":3 , "c" : [] } \n'), { a: [1, []], c: [] });
});

Deno.test("jsonLists() reads NaN and Infinity, which Python writes, as null, but not in texts", () => {
  assert.deepEqual(listsOf('{"a": [{"x": NaN, "y": [-Infinity, 1], "NaN": "Infinity NaN"}]}'), {
    a: [{ x: null, y: [null, 1], NaN: "Infinity NaN" }],
  });
});

Deno.test("jsonLists() says where a file is cut short or no such object, in bounded time and memory", () => {
  const refusals: readonly (readonly [text: string, words: RegExp])[] = [
    ["", /no whole JSON file: it ends at byte 0/],
    ["{", /ends at byte 1, where a name in quotes/],
    ['{"a": [1, 2', /ends at byte 11/],
    ['{"a": [1, {"b": "c', /ends at byte 18, where the end of a text/],
    ['{"a": [1, [[[[', /ends at byte 14, where a closing bracket/],
    ["[1, 2]", /at byte 0 an object/],
    ['{"a": [1]} {', /at byte 11 the end of the file/],
    ['{"a": [1 2]}', /entry 1 of "a", at byte 7, is no JSON/],
    ['{"a": [x]}', /entry 1 of "a"/],
    ['{"a": ["\xff"]}'.replace("\xff", "\\x"), /entry 1 of "a"/],
    ['{"a" [1]}', /at byte 5 a colon/],
    [`{"a": [${"[".repeat(1e6)}`, /a closing bracket/],
    [`{"a": ["${"x".repeat(2 ** 25)}"]}`, /entry 1 of "a" has 33554434 bytes, at most 33554432 are read/],
  ];
  for (const [text, words] of refusals) assert.throws(() => listsOf(text), words, text.slice(0, 50));
  assert.throws(() => jsonLists(bytesOf('{"a": [1, 2, 3]}'), 2), /more than 2 entries in "a"/);
});
