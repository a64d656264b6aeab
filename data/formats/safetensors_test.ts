import assert from "node:assert/strict";
import { Effect } from "effect";
import type { FileTensor } from "./file_tensor.ts";
import { readSafetensors, writeSafetensors } from "./safetensors.ts";

const tensors = new Map<string, FileTensor>([
  ["mask", { dtype: "U8", shape: [3], data: new Uint8Array([1, 0, 255]) }],
  ["weight", { dtype: "F32", shape: [2, 2], data: new Float32Array([1.5, -0, NaN, 1e-45]) }],
  ["counter", { dtype: "I64", shape: [], data: new BigInt64Array([-(2n ** 63n)]) }],
  ["half", { dtype: "F16", shape: [1, 2], data: new Float16Array([0.5, -65504]) }],
  ["empty", { dtype: "F64", shape: [0, 4], data: new Float64Array(0) }],
]);

const join = (pieces: readonly Uint8Array[]) => new Uint8Array(pieces.flatMap((piece) => [...piece]));

/** A file with this header and this much data, whether they fit or not. */
const file = (header: unknown, dataBytes = 0) => {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
};

const reasonOf = (bytes: Uint8Array) => {
  const error = Effect.runSync(Effect.flip(readSafetensors(bytes, "x.safetensors")));
  assert.equal(error._tag, "FormatError");
  assert.match(error.message, /^Cannot read "x.safetensors": /);
  return error.reason;
};

Deno.test("readSafetensors() gives back what writeSafetensors() wrote, bit for bit", () => {
  const bytes = join(writeSafetensors(tensors, { note: "ä", args: "{}" }));
  const read = Effect.runSync(readSafetensors(bytes, "x"));
  assert.deepEqual(read.metadata, { note: "ä", args: "{}" });
  assert.deepEqual(new Set(read.tensors.keys()), new Set(tensors.keys()));
  for (const [name, tensor] of tensors) assert.deepEqual(read.tensors.get(name), tensor, name);
});

Deno.test("readSafetensors() lays views over aligned bytes and copies unaligned ones", () => {
  const bytes = join(writeSafetensors(tensors));
  const aligned = Effect.runSync(readSafetensors(bytes, "x")).tensors.get("weight")!;
  assert.equal(aligned.data.buffer, bytes.buffer);

  const shifted = new Uint8Array(bytes.length + 1).subarray(1);
  shifted.set(bytes);
  const copied = Effect.runSync(readSafetensors(shifted, "x")).tensors;
  for (const [name, tensor] of tensors) assert.deepEqual(copied.get(name), tensor, name);
});

Deno.test("writeSafetensors() gives the same bytes whatever the order of the tensors and the metadata", () => {
  const backwards = new Map([...tensors].reverse());
  assert.deepEqual(
    join(writeSafetensors(tensors, { a: "1", b: "2" })),
    join(writeSafetensors(backwards, { b: "2", a: "1" })),
  );
});

Deno.test("writeSafetensors() aligns every tensor to its element size", () => {
  const [head, ...pieces] = writeSafetensors(tensors);
  let offset = head.length;
  assert.equal(offset % 8, 0);
  for (const [index, size] of [8, 8, 4, 2, 1].entries()) {
    assert.equal(offset % size, 0);
    offset += pieces[index].length;
  }
});

Deno.test("writeSafetensors() refuses values that do not fit their shape or type", () => {
  const data = new Float32Array(3);
  assert.throws(
    () => writeSafetensors(new Map([["w", { dtype: "F32", shape: [2, 2], data }]])),
    /"w".*\[2, 2\].*3 values/,
  );
  assert.throws(() => writeSafetensors(new Map([["w", { dtype: "U32", shape: [3], data }]])), /Float32Array/);
});

Deno.test("readSafetensors() refuses every file that was cut short", () => {
  const bytes = join(writeSafetensors(tensors));
  for (let length = 0; length < bytes.length; length++) reasonOf(bytes.slice(0, length));
  reasonOf(join([bytes, new Uint8Array(1)]));
});

Deno.test("readSafetensors() refuses damaged headers and says what is wrong", () => {
  const entry = (dtype: string, shape: unknown, begin: number, end: number) => ({
    dtype,
    shape,
    data_offsets: [begin, end],
  });
  const huge = new Uint8Array(16).fill(0xff);
  assert.match(reasonOf(huge), /header of 18446744073709551615 bytes/);
  assert.match(reasonOf(file("{").subarray(0, 8)), /ends inside its header/);
  assert.match(reasonOf(file('{"a":')), /not JSON/);
  assert.match(reasonOf(file("[]")), /Expected object/);
  assert.match(reasonOf(file({ __metadata__: { a: 1 } })), /__metadata__/);
  assert.match(reasonOf(file({ w: entry("F31", [1], 0, 4) }, 4)), /"w".*F31/);
  assert.match(reasonOf(file({ w: entry("F32", [-1], 0, 4) }, 4)), /"w"/);
  assert.match(reasonOf(file({ w: { dtype: "F32", shape: [1] } }, 4)), /"w".*data_offsets/);
  assert.match(reasonOf(file({ w: entry("F32", [2], 0, 4) }, 4)), /"w" needs 8 bytes.*span 4/);
  assert.match(reasonOf(file({ w: entry("F32", [1], 4, 0) }, 4)), /"w" needs 4 bytes.*span -4/);
  assert.match(reasonOf(file({ w: entry("F32", [1e9, 1e9], 0, 4) }, 4)), /"w" needs/);
  assert.match(reasonOf(file({ w: entry("F32", [2], 0, 8) }, 4)), /ends at byte 8.*holds 4/);
  assert.match(reasonOf(file({ v: entry("F32", [1], 0, 4), w: entry("F32", [1], 2, 6) }, 6)), /"w" overlaps/);
  assert.match(
    reasonOf(file({ v: entry("F32", [1], 0, 4), w: entry("F32", [1], 8, 12) }, 12)),
    /bytes 4 to 8/,
  );
});

Deno.test("readSafetensors() bounds what a header takes, and shows no more of it than a sentence holds", () => {
  assert.match(reasonOf(file(`{"a":${"[".repeat(5e6)}`)), /more than 4194304 parts/);
  assert.match(
    reasonOf(file({ w: { dtype: "F32", shape: new Array(65).fill(1), data_offsets: [0, 4] } }, 4)),
    /shape of tensor "w"/,
  );
  const long = reasonOf(
    file({ ["w\u001b[2J".repeat(1e5)]: { dtype: "x".repeat(1e6), shape: [], data_offsets: [0, 0] } }),
  );
  assert.ok(long.length < 1000 && !long.includes("\u001b"), long.slice(0, 100));
  for (
    const odd of [
      { w: null },
      { w: 3 },
      { w: [] },
      { __metadata__: [] },
      { w: { dtype: "F32", shape: 4 } },
      5,

      null,
    ]
  ) {
    assert.match(reasonOf(file(odd as never)), /header is wrong/);
  }
});
