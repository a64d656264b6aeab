/** Kernels that walk the last axis of their operands in vec4s where its size allows. */
import type { Operand } from "../graph/kernel.ts";
import { type Vectors, vectors } from "./wgsl.ts";

/** How to write such a kernel: `T` is its element type, `width` floats wide; `bind` is for operands of that axis. */
export interface Vectorized {
  readonly width: 1 | 4;
  readonly bind: (operand: Operand) => Operand | Vectors;
  /** WGSL: the alias `T`. */
  readonly alias: string;
}

export const vectorized = (columns: number): Vectorized =>
  columns % 4 === 0
    ? { width: 4, bind: vectors, alias: "alias T = vec4<f32>;" }
    : { width: 1, bind: (operand) => operand, alias: "alias T = f32;" };
