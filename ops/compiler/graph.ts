/** The graph that is compiled, and predicates on its tensors that several passes share. */
import type { Exchange } from "../graph/lowering.ts";
import { isOp, type Tensor } from "../graph/tensor.ts";

/** A pure step: the next values of the state and the values that it returns. */
export interface Graph {
  /** Names the program in errors and dumps. */
  readonly label: string;
  /** State inputs and their values for the next run. */
  readonly updates?: ReadonlyMap<Tensor, Tensor>;
  /** Small tensors that every run returns. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Whether large activations and their gradients are stored in f16 (mixed_precision.ts); f32 if not given. */
  readonly precision?: "f32" | "f16";
  /** The most bytes of device memory that the program may take; activations are recomputed where they do not fit. */
  readonly memoryLimit?: number;
  /** Bytes within the limit that others take; 0 if not given. */
  readonly memoryTaken?: number;
  /** Names the stage that a tensor belongs to, for times by stage. */
  readonly stageOf?: (x: Tensor) => string;
}

/** The tensors whose values a run leaves: its outputs and the next values of the state. */
export const resultsOf = ({ outputs, updates }: Graph): readonly Tensor[] => [
  ...Object.values(outputs),
  ...updates?.values() ?? [],
];

/** All tensors that `results` depend on, each after its inputs. */
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

/** Whether an expression computes `x`, element by element. */
export const isElementwise = (x: Tensor): boolean => isOp(x) && x.source.op.expression !== undefined;

/** Whether `x` is a sum over rows or columns. */
export const isReduction = (x: Tensor): boolean => isOp(x) && x.source.op.reduction !== undefined;

/** Whether the kernel of `x` can compute elementwise inputs itself. */
export const isFused = (x: Tensor): boolean => isElementwise(x) || isReduction(x);

/** The collective that `x` is the result of, or null. */
export const exchangeOf = (x: Tensor): Exchange | null => isOp(x) ? x.source.op.exchange ?? null : null;

/** Whether `x` is the result of a collective: the program is split there. */
export const isExchange = (x: Tensor): boolean => exchangeOf(x) !== null;

/** Whether `x` is one number known when the graph is built: kernels get it as a uniform, without memory. */
export const isScalar = (x: Tensor): boolean =>
  x.source.kind === "constant" && x.source.data.length === 1 && x.dtype === "f32";
