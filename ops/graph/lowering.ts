/** What an op is told when it is lowered to kernels: its operands, the adapter, and ways to choose from. */
import type { Kernel, Operand } from "./kernel.ts";
import type { Shape } from "./shape.ts";

/** How the results of an exchange come about, and when they are needed. */
export interface Exchange {
  readonly kind: "gather" | "sum";
  /** Only what comes last in the program reads the result: its way may take as long as the rest. */
  readonly overlappable: boolean;
}

export type Backend = "native" | "dawn";

/** What is known about the adapter, in plain values. */
export interface AdapterReport {
  readonly backend: Backend;
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  readonly software: boolean;
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
}

/** What `kernels` of an op is given: where its inputs lie and where its output goes. */
export interface LoweringContext<A> {
  readonly inputs: readonly Operand[];
  readonly output: Operand;
  readonly attributes: A;
  /** Memory that lives only while this op runs. */
  readonly scratch: (shape: Shape, dtype?: Operand["dtype"]) => Operand;
  readonly adapter: AdapterTraits;
  /** Who wants to know moments of the output's columns; null if nobody does. */
  readonly statistics: StatisticsEpilogue | null;
  /** The kernels of one of several ways to do the same: what tuning found for this op and these shapes, else the first. */
  readonly choose: (variants: Variants) => readonly Kernel[];
}

/**
 * Batch statistics are about to be taken of what a product stores: while it has a tile at hand, it can leave that tile's
 * mean and spread, and spare others the way through memory.
 */
export interface StatisticsEpilogue {
  /** Rows that statistics are taken of, one block of them after the other. */
  readonly rows: number;
  /** For parts [rows of the output / each, 2, columns]: of so many rows each the mean, and the sum of squares around it. */
  readonly emit: (parts: Operand, each: number) => void;
}

/** Ways to do the same work, by name; the best guess for the adapter at hand comes first. */
export type Variants = Readonly<Record<string, () => readonly Kernel[]>>;

/** What a kernel may want to know about the device that it is written for. */
export interface AdapterTraits {
  /** Runs on a CPU: few lanes, no cheap workgroup memory, a dispatch costs tens of microseconds. */
  readonly cpu: boolean;
  /** Storage buffers that one shader may bind. */
  readonly maxStorageBuffers: number;
  /** Bytes of the largest piece of a buffer that a shader may bind. */
  readonly maxBinding: number;
  /** Can store f16 (shader-f16). */
  readonly shaderF16: boolean;
  /** Invocations that each subgroup has at least, where they can combine values without memory (subgroups, subgroup_id); or 0. */
  readonly minSubgroupSize: number;
}
