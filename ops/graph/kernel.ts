/** A kernel as plain data: the unit that ops lower to, and what it is bound to. */
import { type DType, type Shape, sizeOf } from "./shape.ts";

/** A piece of device memory that holds a tensor, or some of its rows. */
export interface Operand {
  readonly shape: Shape;
  /** How the elements lie in memory; kernels compute with f16 as with f32. */
  readonly dtype: DType | "f16";
  /** Which buffer; resolved by the memory plan. */
  readonly storage: number;
  /** Where in the buffer it starts, in elements. */
  readonly offset: number;
  /** Of f16: how kernels come to it; `native` if not given. */
  readonly narrowing?: Narrowing;
}

/** By the driver's conversion of f32 to f16; or by integers, where the driver takes long to compile its own. */
export type Narrowing = "native" | "integers";

export interface Binding {
  readonly operand: Operand;
  readonly access: "read" | "write";
}

export interface Kernel {
  readonly label: string;
  readonly code: string;
  /** In the order of their binding numbers; `sizes` follow them as a uniform. */
  readonly bindings: readonly Binding[];
  readonly sizes: Uint32Array | null;
  readonly workgroups: readonly [number, number, number] | { readonly indirect: Operand };
}

/** Bytes of one element in memory. */
export const elementBytes = ({ dtype }: Pick<Operand, "dtype">): number => dtype === "f16" ? 2 : 4;

/** Bytes that an operand takes, in whole words. */
export const bytesOf = (operand: Pick<Operand, "shape" | "dtype">): number =>
  Math.ceil(sizeOf(operand.shape) * elementBytes(operand) / 4) * 4;

/** Bindings begin at multiples of so many elements (256 bytes). */
export const alignmentOf = (operand: Pick<Operand, "dtype">): number => 256 / elementBytes(operand);
