/** The graph that is compiled, and what the passes ask of its tensors. */
import type { Tensor } from "../graph/tensor.ts";

export const isElementwise = (x: Tensor): boolean =>
  x.source.kind === "op" && x.source.op.expression !== undefined;

export const isReduction = (x: Tensor): boolean =>
  x.source.kind === "op" && x.source.op.reduction !== undefined;

/** A number known when the graph is built: it needs no memory. */
export const isScalar = (x: Tensor): boolean =>
  x.source.kind === "constant" && x.source.data.length === 1 && x.dtype === "f32";

/** A pure step: which inputs it replaces by what, and what it hands back. */
export interface Graph {
  readonly label: string;
  /** State inputs and the values that they take for the next run. */
  readonly updates?: ReadonlyMap<Tensor, Tensor>;
  /** Small tensors that every run hands back. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** How activations and their gradients lie in memory: in f16 where it says so (half.ts). */
  readonly precision?: "f32" | "f16";
  /** Bytes of device memory that may be taken in all; what there is no room for is computed again instead of kept. */
  readonly memoryLimit?: number;
  /** Bytes that others take of it. */
  readonly memoryTaken?: number;
  /** Names the stage of work that a tensor belongs to, where the time of stages is of interest. */
  readonly stageOf?: (x: Tensor) => string;
}

export const isExchange = ({ source }: Tensor) => source.kind === "op" && source.op.exchange !== undefined;

export const isFused = (x: Tensor): boolean => isElementwise(x) || isReduction(x);

/** All tensors that `results` depend on, in an order of work. */
export const reachable = (results: readonly Tensor[]): readonly Tensor[] => {
  const found = new Map<number, Tensor>();
  const stack = [...results];
  while (stack.length > 0) {
    const x = stack.pop()!;
    if (found.has(x.id)) continue;
    found.set(x.id, x);
    if (x.source.kind === "reshape") stack.push(x.source.of);
    if (x.source.kind === "op") stack.push(...x.source.inputs);
  }
  return [...found.values()].sort((a, b) => a.id - b.id);
};
