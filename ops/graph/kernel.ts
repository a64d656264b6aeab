/** A kernel as plain data, the unit that ops are lowered to, and the operands that it binds. */
import { type DType, type Shape, sizeOf } from "./shape.ts";

/** A piece of device memory that holds a tensor, or some of its rows. */
export interface Operand {
  /** The sizes of what is bound. */
  readonly shape: Shape;
  /** The element type in memory; kernels compute in f32 what is stored as f16. */
  readonly dtype: DType | "f16";
  /** The number of a tensor's memory or of a scratch area; the memory plan says which buffer holds it. */
  readonly storage: number;
  /** Elements before the first one. */
  readonly offset: number;
  /** For f16: how kernels convert from f32; `native` if not given. */
  readonly narrowing?: Narrowing;
}

/** Conversion from f32 to f16 by the driver, or by integer operations where the driver is slow to compile its own. */
export type Narrowing = "native" | "integers";

/** An operand with the access that a kernel has to it. */
export interface Binding {
  /** The memory. */
  readonly operand: Operand;
  /** What the kernel does with it; what it writes it may read, too. */
  readonly access: "read" | "write";
}

/** A shader and one dispatch of it. */
export interface Kernel {
  /** Names it in errors, profiles and dumps. */
  readonly label: string;
  /** WGSL with the entry point `main`. */
  readonly code: string;
  /** In the order of their binding numbers; `sizes` follow them as a uniform. */
  readonly bindings: readonly Binding[];
  /** The words of the uniform; null if there is none. */
  readonly sizes: Uint32Array | null;
  /** Counts of workgroups, or the operand that holds them when the kernel starts. */
  readonly workgroups: readonly [number, number, number] | { readonly indirect: Operand };
}

/** Bytes of one element in memory. */
export const elementBytes = ({ dtype }: Pick<Operand, "dtype">): number => dtype === "f16" ? 2 : 4;

/** Bytes that an operand takes, in whole words. */
export const bytesOf = (operand: Pick<Operand, "shape" | "dtype">): number =>
  Math.ceil(sizeOf(operand.shape) * elementBytes(operand) / 4) * 4;

/** Bindings begin at multiples of this many elements (256 bytes, WebGPU's default alignment). */
export const alignmentOf = (operand: Pick<Operand, "dtype">): number => 256 / elementBytes(operand);
