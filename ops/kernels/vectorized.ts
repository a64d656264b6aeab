/** Kernels that read and write the last axis of their operands as vec4s where its size allows. */
import type { Operand } from "../graph/kernel.ts";
import { type Vectors, vectors } from "./wgsl.ts";

/** How to write such a kernel. */
export interface Vectorized {
  /** Floats of an element. */
  readonly width: 1 | 4;
  /** Binds an operand with that axis. */
  readonly bind: (operand: Operand) => Operand | Vectors;
  /** WGSL: the alias `T` of an element's type. */
  readonly alias: string;
}

/** Elements of four floats where `columns`, the size of the last axis, is a multiple of four, else of one. */
export const vectorized = (columns: number): Vectorized =>
  columns % 4 === 0
    ? { width: 4, bind: vectors, alias: "alias T = vec4<f32>;" }
    : { width: 1, bind: (operand) => operand, alias: "alias T = f32;" };
