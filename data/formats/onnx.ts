/**
 * ONNX model files: a graph of operators and its weights as one protobuf message. Here is what a network of f32 tensors
 * needs whose operators have one output each.
 *
 * Source: onnx/onnx, `onnx/onnx.proto`, whose messages the functions below are named for and whose field numbers they use.
 */
import { type BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { FileTensor } from "./file_tensor.ts";
import { integer, message, text, written } from "./protobuf.ts";

export interface OnnxModel {
  readonly producer: { readonly name: string; readonly version: string };
  readonly metadata: Readonly<Record<string, string>>;
  readonly name: string;
  readonly input: OnnxValue;
  readonly output: OnnxValue;
  /** Each after those whose output it reads. */
  readonly nodes: readonly OnnxNode[];
  /** F32, under the names by which nodes read them. */
  readonly weights: ReadonlyMap<string, FileTensor>;
}

/** What goes into a graph or comes out of it; an axis of any size has a name. */
export interface OnnxValue {
  readonly name: string;
  readonly shape: readonly (number | string)[];
  readonly about: string;
}

export interface OnnxNode {
  readonly operator: string;
  readonly name: string;
  /** Names of tensors; "" for an optional one that is left out. */
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes: Readonly<Record<string, OnnxAttribute>>;
}

/** An integer, several, a number that need not be one, or text. */
export type OnnxAttribute =
  | number
  | readonly number[]
  | { readonly float: number }
  | { readonly text: string };

// The oldest set of operators that has what is written here, and the format's version that came with it.
const OPERATOR_SET = 17;
const IR_VERSION = 8;

// Readers of protobuf hold lengths in 32 bits with a sign.
const LARGEST_MESSAGE = 2 ** 31 - 1;

/**
 * The bytes of a model file, in pieces to be written one after the other; the weights' pieces are views, not copies.
 * The same model gives the same bytes. Throws a `RangeError` beyond 2 GiB, where protobuf ends.
 */
export const writeOnnx = (model: OnnxModel): readonly Uint8Array<ArrayBuffer>[] => {
  const weights = [...model.weights].flatMap(([name, tensor]) => initializer(name, tensor));
  const graph = written((to) => {
    for (const node of model.nodes) message(to, 1, () => nodeProto(to, node));
    text(to, 2, model.name);
    message(to, 11, () => valueInfoProto(to, model.input));
    message(to, 12, () => valueInfoProto(to, model.output));
  });
  const size = graph.length + bytesOf(weights);
  const head = written((to) => {
    integer(to, 1, IR_VERSION);
    text(to, 2, model.producer.name);
    text(to, 3, model.producer.version);
    message(to, 8, () => integer(to, 2, OPERATOR_SET));
    for (const [key, value] of Object.entries(model.metadata)) {
      message(to, 14, () => {
        text(to, 1, key);
        text(to, 2, value);
      });
    }
    lengthOf(to, 7, size); // the graph comes last, since its weights are not copied into the message
  });
  if (head.length + size > LARGEST_MESSAGE) {
    throw new RangeError(`it takes ${head.length + size} bytes, and an ONNX file ends at ${LARGEST_MESSAGE}`);
  }
  return [head, graph, ...weights];
};

const nodeProto = (to: BinaryWriter, { inputs, output, name, operator, attributes }: OnnxNode) => {
  for (const input of inputs) text(to, 1, input);
  text(to, 2, output);
  text(to, 3, name);
  text(to, 4, operator);
  for (const attribute of Object.entries(attributes)) message(to, 5, () => attributeProto(to, ...attribute));
};

const attributeProto = (to: BinaryWriter, name: string, value: OnnxAttribute) => {
  const [FLOAT, INT, STRING, INTS] = [1, 2, 3, 7];
  text(to, 1, name);
  if (typeof value === "number") {
    integer(to, 3, value);
    integer(to, 20, INT);
  } else if ("float" in value) {
    to.tag(2, WireType.Bit32).float(value.float);
    integer(to, 20, FLOAT);
  } else if ("text" in value) {
    text(to, 4, value.text);
    integer(to, 20, STRING);
  } else {
    for (const each of value) integer(to, 8, each);
    integer(to, 20, INTS);
  }
};

const F32 = 1; // TensorProto.DataType.FLOAT

const valueInfoProto = (to: BinaryWriter, { name, shape, about }: OnnxValue) => {
  text(to, 1, name);
  message(to, 2, () =>
    message(to, 1, () => { // a TypeProto.Tensor
      integer(to, 1, F32);
      message(to, 2, () => {
        for (const size of shape) {
          message(to, 1, () => typeof size === "number" ? integer(to, 1, size) : text(to, 2, size));
        }
      });
    }));
  text(to, 3, about);
};

/** A TensorProto as a field of its graph: what comes before the values, and the values. */
const initializer = (name: string, { shape, data }: FileTensor): readonly Uint8Array<ArrayBuffer>[] => {
  const values = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  const description = written((to) => {
    for (const size of shape) integer(to, 1, size);
    integer(to, 2, F32);
    text(to, 8, name);
    lengthOf(to, 9, values.length);
  });
  return [written((to) => lengthOf(to, 5, description.length + values.length).raw(description)), values];
};

/** The start of a field whose `bytes` follow in pieces of their own. */
const lengthOf = (to: BinaryWriter, field: number, bytes: number) =>
  to.tag(field, WireType.LengthDelimited).uint64(bytes);

const bytesOf = (pieces: readonly Uint8Array[]) => pieces.reduce((total, { length }) => total + length, 0);
