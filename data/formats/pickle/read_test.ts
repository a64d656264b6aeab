import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Effect } from "effect";
import { secondsComputed } from "../../_test_kit.ts";
import { bytesInMemory, type ByteSource } from "../../files/byte_source.ts";
import { readPickle } from "./read.ts";
import { BytesInFile, OrderedDict, refuse, type Unpickling } from "./values.ts";

const unpickling: Unpickling<never> = {
  globals: new Map<string, unknown>([
    ["collections.OrderedDict", () => new OrderedDict()],
    ["builtins.list", ([items = []]: unknown[]) => [...items as unknown[]]],
    ["size", ([bytes]: unknown[]) => bytes instanceof BytesInFile ? bytes.length : refuse("no bytes")],
  ]),
};

/** A pickle from its bytes, as characters. */
const read = (pickle: string | Uint8Array, offset = 0) => {
  const bytes = typeof pickle === "string" ? new Uint8Array(Buffer.from(pickle, "latin1")) : pickle;
  return readPickle(bytesInMemory("x.pkl", bytes), offset, unpickling);
};

const valueOf = (pickle: string | Uint8Array) => Effect.runSync(read(pickle)).value;

const reasonOf = (pickle: string | Uint8Array) => {
  const error = Effect.runSync(Effect.flip(read(pickle)));
  assert.equal(error._tag, "FormatError");
  assert.match(error.message, /^Cannot read "x.pkl": /);
  return error.reason;
};

const little = (value: number, length: number) =>
  Array.from({ length }, (_, i) => String.fromCharCode(Math.floor(value / 256 ** i) % 256)).join("");

Deno.test("readPickle() reads plain values of all protocols", () => {
  const values: [string, unknown][] = [
    ["N.", null],
    ["I01\n.", true],
    ["\x89.", false],
    ["I-12\n.", -12],
    ["L123456789012345678901L\n.", 123456789012345678901n],
    ["J\xfe\xff\xff\xff.", -2],
    ["M\x01\x02.", 513],
    ["\x8a\x00.", 0],
    ["\x8a\x02\x00\xff.", -256],
    ["\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", 2n ** 63n - 1n],
    ["\x8b\x01\x00\x00\x00\x80.", -128],
    ["F-1.5e3\n.", -1500],
    ["Finf\n.", Infinity],
    ["G\x3f\xf8\x00\x00\x00\x00\x00\x00.", 1.5],
    ["V\\u20ac\xe4\\U0001F600\n.", "€ä😀"],
    ["X\x03\x00\x00\x00\xe2\x82\xac.", "€"],
    ["\x8d\x01\x00\x00\x00\x00\x00\x00\x00a.", "a"],
    ["U\x02\xe4\x80.", "ä\x80"],
    ["C\x02\x00\xff.", new Uint8Array([0, 255])],
    ["(K\x01K\x02t.", [1, 2]],
    ["K\x01K\x02\x86.", [1, 2]],
    ["](K\x01)e.", [1, []]],
    ["(K\x01l.", [1]],
    ["(X\x09\0\0\0__proto__K\x01d.", new Map([["__proto__", 1]])],
    ["}(K\x01NK\x02\x88u.", new Map<number, unknown>([[1, null], [2, true]])],
    ["\x8f(K\x01K\x01\x90.", new Set([1])],
    ["(K\x01\x91.", new Set([1])],
    ["]q\x05h\x05\x86.", [[], []]],
    ["]\x94h\x00\x86.", [[], []]],
    ["]p7\ng7\n\x86.", [[], []]],
    ["K\x010N.", null],
    ["N(1.", null],
    ["K\x012\x86.", [1, 1]],
    ["\x80\x04\x95\x02\0\0\0\0\0\0\0K\x01.", 1],
    ["ccollections\nOrderedDict\n)R(K\x01K\x02u.", new OrderedDict([[1, 2]])],
    ["\x8c\x0bcollections\x8c\x0bOrderedDict\x93)}\x92.", new OrderedDict()],
  ];
  for (const [pickle, expected] of values) {
    assert.deepEqual(valueOf(pickle), expected, JSON.stringify(pickle));
  }
});

Deno.test("readPickle() reads pickles that follow each other, and values of any size", () => {
  const text = "€".repeat(100_000);
  const bytes = new Uint8Array(300_000).map((_, i) => i % 251);
  const utf8 = Buffer.from(text).toString("latin1");
  const pickle = "K\x01." + "(" + `X${little(300_000, 4)}${utf8}` + "K\x07".repeat(100_000) +
    `B${little(300_000, 4)}${Buffer.from(bytes).toString("latin1")}` + "l." + "behind";
  const first = Effect.runSync(read(pickle));
  assert.deepEqual(first, { value: 1, end: 3 });
  const { value, end } = Effect.runSync(read(pickle, first.end));
  assert.equal(end, pickle.length - "behind".length);
  const list = value as unknown[];
  assert.equal(list.length, 100_002);
  assert.equal(list[0], text);
  assert.deepEqual(list.at(-1), bytes);

  const often = valueOf(
    `(B${little(1_000_000, 4)}${"x".repeat(1_000_000)}q\x00${"h\x00".repeat(50_000)}l.`,
  ) as unknown[];
  assert.equal(often.length, 50_001);
  assert.equal(often[0], often.at(-1));
});

Deno.test("readPickle() refuses what a pickle asks for, by name, before it does anything", () => {
  assert.match(
    reasonOf("cposix\nsystem\nX\x02\0\0\0id\x85R."),
    /asks for posix\.system.*nothing of it was run/,
  );
  assert.match(reasonOf("c__builtin__\neval\nX\x01\0\0\x001\x85R."), /__builtin__\.eval/);
  assert.match(reasonOf("\x80\x04\x8c\x08builtins\x8c\x07getattr\x93."), /builtins\.getattr/);
  assert.match(
    reasonOf("\x80\x04\x8c\x08builtins\x8c\x14list.__init__.x\x00\x1b[2J\x93."),
    /list\.__init__\.x\\u0000\\u001b/,
  );
  assert.match(reasonOf("c__main__\nModel\n)\x81."), /__main__\.Model/);
  assert.match(reasonOf("c\nconstructor\n."), /asks for \.constructor/);
  assert.match(reasonOf("(S'id'\nios\nsystem\n."), /0x53/);
  assert.match(reasonOf("(cposix\nsystem\no."), /posix\.system/);
  assert.match(reasonOf("\x82\x01."), /0x82/); // an extension registry's code
  assert.match(reasonOf("\x97."), /0x97/); // a buffer elsewhere
  assert.match(reasonOf("K\x01Q."), /outside of its pickle/);
  assert.match(reasonOf("Pfile\n."), /outside of its pickle/);
  assert.match(reasonOf("]}b."), /sets the state/);
  assert.match(reasonOf("cbuiltins\nlist\n."), /keeps builtins\.list itself/);
  assert.match(reasonOf("}(K\x01cbuiltins\nlist\nu."), /builtins\.list itself as "1"/);
});

Deno.test("readPickle() refuses damaged pickles and says what is wrong", () => {
  const damaged: [string, RegExp][] = [
    ["", /ends at byte 0/],
    ["K\x01", /ends at byte 2/],
    ["X\xff\xff\xff\xffa.", /needs 4294967295 more at byte 5/],
    ["\x8e\xff\xff\xff\xff\xff\xff\xff\xffa.", /cut short/],
    ["\x96\0\0\0\0\0\0\0\x01.", /cut short/],
    ["\x95\xff\xff\xff\xff\0\0\0\0N.", /cut short/],
    ["\x8b\xff\xff\xff\x7f.", /integer of 2147483647 bytes/],
    [`L${"9".repeat(3000)}L\n.`, /integer "999/],
    ["I0x10\n.", /integer "0x10"/],
    ["F__proto__\n.", /number "__proto__"/],
    ["V\\Uffffffff\n.", /character 4294967295/],
    ["X\x02\0\0\0\xc3\x28.", /UTF-8/],
    ["c" + "a".repeat(200_000), /longer than 4096/],
    ["cabc", /cut short/],
    ["V" + "a".repeat(200_000), /cut short/],
    ["\x80\x06N.", /protocol 6/],
    [".", /empty stack/],
    ["K\x01(.", /empty stack/],
    ["K\x01(0\x86.", /empty stack/],
    ["t.", /mark/],
    ["h\x01.", /value 1, which it never kept/],
    ["j\xff\xff\xff\xff.", /value 4294967295/],
    ["Nr\xff\xff\xff\xffh\xff.", /value 255/],
    ["Np-1\n.", /keeps a value as "-1"/],
    ["K\x01K\x02a.", /no list/],
    ["K\x01(K\x02e.", /no list/],
    ["](K\x01K\x02u.", /no dict/],
    ["}(K\x01u.", /without a value/],
    ["](K\x01\x90.", /no set/],
    ["K\x01)R.", /no function/],
    ["cbuiltins\nlist\nK\x01R.", /list of arguments/],
    ["cbuiltins\nlist\n)}(K\x01K\x02u\x92.", /named arguments/],
    ["\x80\x04K\x01K\x02\x93.", /no text/],
    ["csize\n\n)R.", /asks for size\./],
    ["?.", /byte 0 is 0x3f.*no pickle/],
    [`}B${little(70_000, 4)}${"x".repeat(70_000)}Ns.`, /70000 bytes as a key/],
  ];
  for (const [pickle, reason] of damaged) {
    assert.match(reasonOf(pickle), reason, JSON.stringify(pickle.slice(0, 40)));
  }
});

Deno.test("readPickle() refuses texts that are longer than any, before they are read", () => {
  const size = 2 ** 26 + 1;
  const read: number[] = [];
  const source: ByteSource = {
    name: "x.pkl",
    size: size + 10,
    read: (offset, length) => {
      read.push(length);
      const bytes = new Uint8Array(length);
      if (offset === 0) bytes.set([0x58, ...new Uint8Array(new Uint32Array([size]).buffer)]); // X, length
      return Effect.succeed(bytes);
    },
  };
  const { message } = Effect.runSync(Effect.flip(readPickle(source, 0, unpickling)));
  assert.match(message, /a text of 67108865 bytes, at most 67108864 are read/);
  assert.ok(Math.max(...read) <= 2 ** 16);
});

Deno.test("readPickle() refuses values without an end, in bounded time and memory", () => {
  const doubled = "]" + "q\x00h\x00\x86".repeat(60) + ".";
  const values: [string, RegExp][] = [
    ["]q\x00h\x00a.", /contains itself/],
    ["}q\x00(K\x01h\x00u.", /contains itself/],
    ["]q\x00h\x00\x85a.", /contains itself/],
    ["}q\x00(h\x00K\x01u.", /contains itself/],
    [")" + "\x85".repeat(1_000_000) + ".", /nested deeper than 1000/],
    ["]".repeat(1_000_000) + "a".repeat(999_999) + ".", /nested deeper than 1000/],
    ["(".repeat(1_000_000) + "t".repeat(1_000_000) + ".", /nested deeper than 1000/],
    [doubled, /unfolds to more than/],
    ["(" + "}".repeat(5_000_000) + "t.", /more than 4194304 opcodes/],
    [
      "(" + "N".repeat(1_000_000) + "lq\x00(" + "cbuiltins\nlist\nh\x00\x85R".repeat(100_000) + "t.",
      /over and over/,
    ],
  ];
  for (const [pickle, reason] of values) {
    const before = Deno.memoryUsage().rss;
    const start = secondsComputed();
    assert.match(reasonOf(pickle), reason);
    assert(secondsComputed() - start < 10, `${reason} took too long`);
    assert(Deno.memoryUsage().rss - before < 1e9, `${reason} took too much memory`);
  }
});
