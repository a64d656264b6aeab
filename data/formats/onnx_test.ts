import assert from "node:assert/strict";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { type OnnxModel, writeOnnx } from "./onnx.ts";

const MODEL: OnnxModel = {
  producer: { name: "test", version: "1" },
  metadata: { key: "value" },
  name: "graph",
  input: { name: "x", shape: ["batch", 2], about: "two numbers" },
  output: { name: "y", shape: ["batch", 2], about: "" },
  nodes: [{
    operator: "Norm",
    name: "norm",
    inputs: ["x", "w"],
    output: "y",
    attributes: { axes: [1, -1], epsilon: { float: 0.5 }, flag: 3, mode: { text: "linear" } },
  }],
  weights: new Map([["w", { dtype: "F32", shape: [1, 2], data: Float32Array.of(2, 0.5) }]]),
};

/** Which fields of a message are messages again, and which of theirs. */
interface Nested {
  readonly [field: number]: Nested;
}
const VALUE: Nested = { 2: { 1: { 2: { 1: {} } } } };
const NESTED: Nested = { 7: { 1: { 5: {} }, 5: {}, 11: VALUE, 12: VALUE }, 8: {}, 14: {} };

/** What a message says, by field numbers. */
const read = (bytes: Uint8Array, nested: Readonly<Record<number, Nested>>): Record<number, unknown[]> => {
  const reader = new BinaryReader(bytes);
  const fields: Record<number, unknown[]> = {};
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    (fields[field] ??= []).push(
      type === WireType.Varint
        ? Number(reader.int64())
        : type === WireType.Bit32
        ? reader.float()
        : field in nested
        ? read(reader.bytes(), nested[field])
        : reader.string(),
    );
  }
  return fields;
};

Deno.test("writeOnnx() writes the messages of onnx.proto", async () => {
  const bytes = new Uint8Array(await new Blob([...writeOnnx(MODEL)]).arrayBuffer());
  const value = (name: string, about: string) => ({
    1: [name],
    2: [{ 1: [{ 1: [1], 2: [{ 1: [{ 2: ["batch"] }, { 1: [2] }] }] }] }],
    3: [about],
  });
  assert.deepEqual(read(bytes, NESTED), {
    1: [8],
    2: ["test"],
    3: ["1"],
    7: [{
      1: [{
        1: ["x", "w"],
        2: ["y"],
        3: ["norm"],
        4: ["Norm"],
        5: [
          { 1: ["axes"], 8: [1, -1], 20: [7] },
          { 1: ["epsilon"], 2: [0.5], 20: [1] },
          { 1: ["flag"], 3: [3], 20: [2] },
          { 1: ["mode"], 4: ["linear"], 20: [3] },
        ],
      }],
      2: ["graph"],
      5: [{ 1: [1, 2], 2: [1], 8: ["w"], 9: ["\0\0\0@\0\0\0?"] }],
      11: [value("x", "two numbers")],
      12: [value("y", "")],
    }],
    8: [{ 2: [17] }],
    14: [{ 1: ["key"], 2: ["value"] }],
  });
});

Deno.test("writeOnnx() refuses what is larger than a protobuf file can be", () => {
  const half = { dtype: "F32", shape: [2 ** 28], data: new Float32Array(2 ** 28) } as const; // never touched
  const weights = new Map([["a", half], ["b", half]]);
  assert.throws(
    () => writeOnnx({ ...MODEL, weights }),
    /^RangeError: it takes 21474\d+ bytes, .* 2147483647$/,
  );
  assert.equal(writeOnnx({ ...MODEL, weights: new Map([["a", half]]) }).at(-1)!.buffer, half.data.buffer);
});
