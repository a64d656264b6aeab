/**
 * Symbolic tensors. A tensor is a description: its shape, its element type and the source of its values. Calling an op
 * computes nothing; `compile` (runtime/program.ts) turns a graph of tensors into a program for one adapter.
 *
 * Data is row-major. Images and feature maps are channels-last, [N, H, W, C]; weight files store [N, C, H, W].
 */
import type { Kernel } from "./kernel.ts";
import type { Access } from "./layout.ts";
import type { Exchange, LoweringContext } from "./lowering.ts";
import { type DType, type Shape, shapeError, sizeOf } from "./shape.ts";

/** A node of a graph: the description of an array that a program computes or is given. */
export interface Tensor {
  /** Counts up in the order of creation, so that every tensor comes after its inputs. */
  readonly id: number;
  /** Sizes of the axes. */
  readonly shape: Shape;
  /** Element type; mixed precision may store f32 as f16. */
  readonly dtype: DType;
  /** Where the values come from. */
  readonly source: Source;
}

/** Where a tensor's values come from. */
export type Source = InputSource | ConstantSource | ReshapeSource | OpSource;

/** Values given from outside, under a name that is unique in the graph. */
export interface InputSource {
  /** Tells the sources apart. */
  readonly kind: "input";
  /** The name under which values are given. */
  readonly name: string;
}

/** Values known when the graph is built. */
export interface ConstantSource {
  /** Tells the sources apart. */
  readonly kind: "constant";
  /** The values, row-major. */
  readonly data: Float32Array | Uint32Array;
}

/** The values of another tensor under another shape. */
export interface ReshapeSource {
  /** Tells the sources apart. */
  readonly kind: "reshape";
  /** The other tensor. */
  readonly of: Tensor;
  /** Whether gradients flow back; a stopped gradient is a reshape to the same shape for which they do not. */
  readonly differentiable: boolean;
}

/** The result of an op. */
export interface OpSource {
  /** Tells the sources apart. */
  readonly kind: "op";
  /** The op. */
  readonly op: OpDefinition<unknown>;
  /** What it is computed from. */
  readonly inputs: readonly Tensor[];
  /** What else its result depends on. */
  readonly attributes: unknown;
}

/** A tensor that an op computes. */
export type OpTensor = Tensor & { readonly source: OpSource };

/** Whether an op computes `x`. */
export const isOp = (x: Tensor): x is OpTensor => x.source.kind === "op";

/** The name of an input. Throws where `x` is no input. */
export const inputName = ({ source }: Tensor): string => {
  if (source.kind !== "input") {
    throw new Error(`this tensor is no input: its source is of kind "${source.kind}"`);
  }
  return source.name;
};

/** The values of a constant. Throws where `x` is no constant. */
export const constantData = ({ source }: Tensor): Float32Array | Uint32Array => {
  if (source.kind !== "constant") {
    throw new Error(`this tensor is no constant: its source is of kind "${source.kind}"`);
  }
  return source.data;
};

/** What `backward` of an op is given. */
export interface BackwardContext<A> {
  /** The inputs of the op. */
  readonly inputs: readonly Tensor[];
  /** Its result. */
  readonly output: Tensor;
  /** Derivative of the loss with respect to `output`, of the same shape. */
  readonly gradient: Tensor;
  /** The attributes of the op. */
  readonly attributes: A;
}

/** How an op can be computed in slices, see `OpDefinition.slices`. */
export interface Slices {
  /** Which inputs are sliced along their first axis that is not 1. */
  readonly along: readonly number[];
  /** Whether a slice computes rows of the output, or a term of it that is added to those of the other slices. */
  readonly output: "rows" | "sum";
}

/**
 * Slices along the first axis of the inputs `along`: whole images of a batch. There are none of a single image, because
 * kernels with windows reach beyond some of its rows.
 */
export const imageSlices = (
  along: readonly number[],
  output: Slices["output"] = "rows",
): (inputs: readonly Pick<Tensor, "shape">[]) => Slices | null =>
(inputs) => inputs[along[0]].shape[0] === 1 ? null : { along, output };

/** An op: the shape of its result, how it is computed, and its gradient. */
export interface OpDefinition<A> {
  /** Names it in errors, labels and dumps. */
  readonly name: string;
  /** The shape of the result. Throws ShapeError where the inputs do not fit. */
  readonly shape: (inputs: readonly Tensor[], attributes: A) => Shape;
  /**
   * The element types of the inputs, f32 where none is given; "any" where all are taken or `shape` checks them.
   * Calling the op throws ShapeError where an input has another.
   */
  readonly takes?: readonly DType[] | "any";
  /** The element type of the result; f32 if not given. */
  readonly dtype?: DType;
  /**
   * Elementwise ops give a WGSL expression over their (broadcast) inputs instead of kernels; `T` in it is the element
   * type, f32 or vec4<f32>, and `U` as many u32. The compiler fuses chains of them (compiler/fusion.ts).
   */
  readonly expression?: (inputs: readonly string[], attributes: A) => string;
  /** WGSL functions that `expression` calls, as `fn name(x: T) -> T`. */
  readonly functions?: string;
  /** For elementwise ops that read their input at other indices than those of their output: slices, transpositions. */
  readonly access?: (input: Shape, attributes: A) => Access;
  /** Kernels that compute the result, for ops that are neither elementwise, reductions nor collectives. */
  readonly kernels?: (context: LoweringContext<A>) => readonly Kernel[];
  /** In place of kernels: the collective operation that ranks perform on their inputs (collective.ts). */
  readonly exchange?: Exchange;
  /** Reductions over columns or rows; their inputs are read through fused elementwise expressions. */
  readonly reduction?: "columns" | "rows";
  /**
   * For a column reduction: the tensor [G, R, C] whose shifted sums [G, 2, C] it computes (the sums of the differences
   * to the first row of each group, and of their squares). A GEMM that computes this tensor may then reduce its tiles
   * in its epilogue (`StatisticsEpilogue`), and the reduction need not read the tensor again. Null where it computes
   * other sums.
   */
  readonly shiftedSumsOf?: (attributes: A) => Tensor | null;
  /**
   * How the result is stored in a program of half precision (compiler/mixed_precision.ts): GEMMs in `half`; in `full`
   * what would lose too much, such as sums over many rows and softmaxes. If not given, as the largest inputs are.
   */
  readonly precision?: "half" | "full";
  /** Floating-point operations, where these are more than a few per element of the result: GEMMs and convolutions. */
  readonly flops?: (inputs: readonly Tensor[], output: Shape) => number;
  /** How the op can be computed in slices where tensors are larger than one binding; null where it cannot. */
  readonly slices?: (inputs: readonly Tensor[]) => Slices | null;
  /** One gradient per input; `null` where none flows. The caller sums them over axes that were broadcast. */
  readonly backward?: (context: BackwardContext<A>) => readonly (Tensor | null)[];
}

const requireTypes = (
  { name, takes = [] }: Pick<OpDefinition<never>, "name" | "takes">,
  inputs: readonly Tensor[],
) => {
  if (takes === "any") return;
  for (const [i, { dtype, shape }] of inputs.entries()) {
    const wanted = takes[i] ?? "f32";
    if (dtype !== wanted) shapeError(name, `its ${ordinal(i)} input as ${wanted}, not ${dtype}`, shape);
  }
};

const ordinal = (index: number): string => ["first", "second", "third", "fourth"][index] ?? `${index + 1}th`;

let created = 0;
const tensor = (what: string, shape: Shape, dtype: DType, source: Source): Tensor => {
  if (!shape.every((size) => Number.isSafeInteger(size) && size > 0)) {
    shapeError(what, "sizes that are whole numbers above 0", shape);
  }
  return { id: created++, shape, dtype, source };
};

/** Values given from outside: state that stays on the device between runs, or a batch uploaded before each run. */
export const input = (name: string, shape: Shape, dtype: DType = "f32"): Tensor =>
  tensor(`input "${name}"`, shape, dtype, { kind: "input", name });

/** Values known when the graph is built; a single number is a scalar, shape []. */
export const constant = (
  data: number | readonly number[] | Float32Array | Uint32Array,
  shape?: Shape,
): Tensor => {
  const values = typeof data === "number"
    ? Float32Array.of(data)
    : data instanceof Uint32Array || data instanceof Float32Array
    ? data
    : Float32Array.from(data);
  const dims = shape ?? (typeof data === "number" ? [] : [values.length]);
  if (sizeOf(dims) !== values.length) shapeError("constant", `${values.length} values`, dims);
  return tensor("constant", dims, values instanceof Uint32Array ? "u32" : "f32", {
    kind: "constant",
    data: values,
  });
};

/** The same values under another shape of the same size; costs nothing. */
export const reshape = (x: Tensor, shape: Shape): Tensor => {
  if (sizeOf(shape) !== sizeOf(x.shape)) shapeError("reshape", `${sizeOf(x.shape)} elements`, x.shape, shape);
  return tensor("reshape", shape, x.dtype, { kind: "reshape", of: x, differentiable: true });
};

/** The same values, through which no gradient flows back. */
export const stopGradient = (x: Tensor): Tensor =>
  tensor("stopGradient", x.shape, x.dtype, { kind: "reshape", of: x, differentiable: false });

/** An op as a function from tensors to the description of its result; nothing runs. */
export type Op<A = void> = (inputs: readonly Tensor[], attributes: A) => Tensor;

/** Defines an op, which throws ShapeError where the shapes, element types or attributes that it is given do not fit. */
export const defineOp =
  <A = void>(name: string, definition: Omit<OpDefinition<A>, "name">): Op<A> => (inputs, attributes) => {
    const op: OpDefinition<A> = { name, ...definition };
    requireTypes(op, inputs);
    const shape = definition.shape(inputs, attributes);
    return tensor(name, shape, definition.dtype ?? "f32", {
      kind: "op",
      op: op as OpDefinition<unknown>,
      inputs,
      attributes,
    });
  };

/** The tensor whose memory holds the values of `x`: `x` itself, or what it is a reshape of. */
export const storageOf = (x: Tensor): Tensor => x.source.kind === "reshape" ? storageOf(x.source.of) : x;
