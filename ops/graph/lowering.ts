/**
 * What an op is given when it is lowered to kernels: its operands, the adapter's traits, and variants to choose from.
 */
import type { Kernel, Operand } from "./kernel.ts";
import type { Shape } from "./shape.ts";

/** A collective operation over the ranks of a run. */
export interface Exchange {
  /** `gather` concatenates the operands of all ranks, `sum` adds them up. */
  readonly kind: "gather" | "sum";
  /** Only the end of the program reads the result, so the exchange may overlap with all other work. */
  readonly overlappable: boolean;
}

/** Which WebGPU implementation a device comes from: Deno's own or Google's Dawn. */
export type Backend = "native" | "dawn";

/** What is known about the adapter, in plain values. */
export interface AdapterReport {
  /** The WebGPU that it was asked of. */
  readonly backend: Backend;
  /** As WebGPU's GPUAdapterInfo. */
  readonly vendor: string;
  /** As WebGPU's GPUAdapterInfo. */
  readonly architecture: string;
  /** A name for people. */
  readonly description: string;
  /** Whether it runs on a CPU. */
  readonly software: boolean;
  /** WebGPU's names, sorted. */
  readonly features: readonly string[];
  /** WebGPU's limits, by name. */
  readonly limits: Readonly<Record<string, number>>;
}

/** What `kernels` of an op is given. */
export interface LoweringContext<A> {
  /** Where the inputs are stored. */
  readonly inputs: readonly Operand[];
  /** Where the result is to be stored. */
  readonly output: Operand;
  /** The attributes of the op. */
  readonly attributes: A;
  /** Reserves memory that only this op uses, while it runs; f32 if no element type is given. */
  readonly scratch: (shape: Shape, dtype?: Operand["dtype"]) => Operand;
  /** The adapter that kernels are generated for. */
  readonly adapter: AdapterTraits;
  /** The statistics of the output's columns that a GEMM should take in its epilogue; null where nothing reads them. */
  readonly statistics: StatisticsEpilogue | null;
  /** The kernels of one of several variants: the one that tuning found for this op and these shapes, else the first. */
  readonly choose: (variants: Variants) => readonly Kernel[];
}

/**
 * A fused epilogue: while a tile of the output is in registers, a GEMM also writes the mean and M2 (the sum of squared
 * differences to the mean) of its columns, so that batch norm need not read the output again.
 */
export interface StatisticsEpilogue {
  /** Rows of each group that statistics are taken over; the groups follow one another in the output. */
  readonly rows: number;
  /** Announces `partials` [rows of the output / rowsPerPartial, 2, columns]: mean and M2 of so many rows each. */
  readonly emit: (partials: Operand, rowsPerPartial: number) => void;
}

/** Kernels that compute the same in different ways, by name; the best guess for the adapter at hand comes first. */
export type Variants = Readonly<Record<string, () => readonly Kernel[]>>;

/** What kernels depend on of the device that they are generated for. */
export interface AdapterTraits {
  /** Runs on a CPU: few lanes, no cheap workgroup memory, a dispatch costs tens of microseconds. */
  readonly cpu: boolean;
  /** Storage buffers that one shader may bind. */
  readonly maxStorageBuffers: number;
  /** Bytes of the largest piece of a buffer that a shader may bind. */
  readonly maxBinding: number;
  /** Can store f16 (shader-f16). */
  readonly shaderF16: boolean;
  /**
   * The fewest invocations of a subgroup, where the adapter has WebGPU's `subgroups` and WGSL's `subgroup_id`; 0 where
   * it lacks either.
   */
  readonly minSubgroupSize: number;
}
