/**
 * Symbolic tensors. A tensor is a description: its shape, its element type and how it comes about. Calling an op
 * runs nothing; `compile` (compile.ts) turns a graph of tensors into a program for one adapter.
 *
 * Data is row-major. Pictures and feature maps are channels-last, [N, H, W, C]; files speak [N, C, H, W].
 */
import type { Kernel } from "./kernel.ts";
import type { Access } from "./layout.ts";
import type { Exchange, LoweringContext } from "./lowering.ts";
import { type DType, type Shape, shapeError, sizeOf } from "./shape.ts";

export interface Tensor {
  /** Counts up in the order of creation, so that every tensor comes after what it is made from. */
  readonly id: number;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly source: Source;
}

/** Where a tensor's values come from. */
export type Source =
  | { readonly kind: "input"; readonly name: string }
  | { readonly kind: "constant"; readonly data: Float32Array | Uint32Array }
  /** The same values under another shape; `differentiable: false` is a stopped gradient. */
  | { readonly kind: "reshape"; readonly of: Tensor; readonly differentiable: boolean }
  | {
    readonly kind: "op";
    readonly op: OpDefinition<unknown>;
    readonly inputs: readonly Tensor[];
    readonly attributes: unknown;
  };

/** What `backward` of an op is given. */
export interface BackwardContext<A> {
  readonly inputs: readonly Tensor[];
  readonly output: Tensor;
  /** Derivative of the loss with respect to `output`, of the same shape. */
  readonly gradient: Tensor;
  readonly attributes: A;
}

export interface Slices {
  readonly along: readonly number[];
  readonly output: "rows" | "sum";
}

export interface OpDefinition<A> {
  readonly name: string;
  readonly shape: (inputs: readonly Tensor[], attributes: A) => Shape;
  readonly dtype?: DType;
  /**
   * Elementwise ops give a WGSL expression over their (broadcast) inputs instead of kernels; `T` in it is the element
   * type, f32 or vec4<f32>, and `U` as many u32. The compiler fuses chains of them.
   */
  readonly expression?: (inputs: readonly string[], attributes: A) => string;
  /** WGSL functions that `expression` calls, as `fn name(x: T) -> T`. */
  readonly functions?: string;
  /** For elementwise ops that read their input at other places than their output's own: slices, transpositions. */
  readonly access?: (input: Shape, attributes: A) => Access;
  readonly kernels?: (context: LoweringContext<A>) => readonly Kernel[];
  /** In place of kernels: what ranks do with their inputs (collective.ts). */
  readonly exchange?: Exchange;
  /** Reductions read their inputs through fused elementwise expressions (fuse.ts). */
  readonly reduction?: "columns" | "rows";
  /**
   * How the result is stored in a program of half precision (half.ts): products in `half`; in `full` what would lose too
   * much, such as sums over many rows and softmaxes. If not given, as the largest inputs are.
   */
  readonly precision?: "half" | "full";
  /**
   * Floating-point operations that it takes, where these are more than a few an element of the result: products and
   * convolutions.
   */
  readonly flops?: (inputs: readonly Tensor[], output: Shape) => number;
  /**
   * How the op can be done in slices, where tensors are larger than one binding: `along` the first axis (that is not
   * 1) of which inputs, and whether slices of the output are its rows or whole outputs to be added up.
   */
  readonly slices?: (inputs: readonly Tensor[]) => Slices | null;
  /** One gradient an input; `null` where none flows. Shapes are summed over broadcast axes by the caller. */
  readonly backward?: (context: BackwardContext<A>) => readonly (Tensor | null)[];
}

let created = 0;
const tensor = (shape: Shape, dtype: DType, source: Source): Tensor => ({
  id: created++,
  shape,
  dtype,
  source,
});

/** Values given from outside: state that lives on the device, or a batch uploaded before each run. */
export const input = (name: string, shape: Shape, dtype: DType = "f32"): Tensor =>
  tensor(shape, dtype, { kind: "input", name });

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
  return tensor(dims, values instanceof Uint32Array ? "u32" : "f32", { kind: "constant", data: values });
};

/** The same values under another shape of the same size; costs nothing. */
export const reshape = (x: Tensor, shape: Shape): Tensor => {
  if (sizeOf(shape) !== sizeOf(x.shape)) shapeError("reshape", `${sizeOf(x.shape)} elements`, x.shape, shape);
  return tensor(shape, x.dtype, { kind: "reshape", of: x, differentiable: true });
};

/** The same values, through which no gradient flows back. */
export const stopGradient = (x: Tensor): Tensor =>
  tensor(x.shape, x.dtype, { kind: "reshape", of: x, differentiable: false });

/** What calling an op is: nothing runs, a description is made. */
export type Op<A = void> = (inputs: readonly Tensor[], attributes: A) => Tensor;

/** The callable of an op. */
export const defineOp =
  <A = void>(name: string, definition: Omit<OpDefinition<A>, "name">): Op<A> => (inputs, attributes) => {
    const op: OpDefinition<A> = { name, ...definition };
    const shape = definition.shape(inputs, attributes);
    return tensor(shape, definition.dtype ?? "f32", {
      kind: "op",
      op: op as OpDefinition<unknown>,
      inputs,
      attributes,
    });
  };

/** The tensor whose memory a view shares. */
export const storageOf = (x: Tensor): Tensor => x.source.kind === "reshape" ? storageOf(x.source.of) : x;
