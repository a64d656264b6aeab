/** Reverse-mode gradients as a graph transform: derivatives are tensors like all others. */
import { add, broadcastTo } from "./arithmetic.ts";
import { sameShape } from "./graph/shape.ts";
import { constant, reshape, type Tensor } from "./graph/tensor.ts";
import { sumTo } from "./reduce.ts";

/** The inputs of `x` to which gradients may flow. */
const parents = (x: Tensor): readonly Tensor[] => {
  if (x.source.kind === "reshape") return x.source.differentiable ? [x.source.of] : [];
  return x.source.kind === "op" && x.source.op.backward !== undefined ? x.source.inputs : [];
};

/**
 * Derivatives of the scalar `loss` with respect to each of `wrt`, in the shapes of these; zeros where `loss` does not
 * depend on a tensor.
 */
export const gradients = (loss: Tensor, wrt: readonly Tensor[]): Tensor[] =>
  gradientsWhereReached(loss, wrt).map((gradient, i) => gradient ?? broadcastTo(constant(0), wrt[i].shape));

/** The same, but null where no gradient of `loss` reaches the tensor. */
export const gradientsWhereReached = (loss: Tensor, wrt: readonly Tensor[]): (Tensor | null)[] => {
  // The tensors on a path from `wrt` to the loss. Ids grow from inputs to outputs, so sorting by id is a topological order.
  const reachable = new Map<number, Tensor>();
  const collect = (x: Tensor) => {
    const stack = [x];
    while (stack.length > 0) {
      const next = stack.pop()!;
      if (reachable.has(next.id)) continue;
      reachable.set(next.id, next);
      stack.push(...parents(next));
    }
  };
  collect(loss);
  const wanted = new Set(wrt.map((x) => x.id));
  const needed = new Set<number>();
  const order = [...reachable.values()].sort((a, b) => a.id - b.id);
  for (const x of order) {
    if (wanted.has(x.id) || parents(x).some((parent) => needed.has(parent.id))) needed.add(x.id);
  }

  const gradient = new Map<number, Tensor>([[loss.id, broadcastTo(constant(1), loss.shape)]]);
  const accumulate = (x: Tensor, g: Tensor) => {
    if (!needed.has(x.id)) return;
    const fitted = sameShape(g.shape, x.shape) ? g : sumTo(g, x.shape);
    const before = gradient.get(x.id);
    gradient.set(x.id, before === undefined ? fitted : add(before, fitted));
  };
  for (const x of order.reverse()) {
    const g = gradient.get(x.id);
    if (g === undefined || !needed.has(x.id)) continue;
    if (x.source.kind === "reshape" && x.source.differentiable) {
      accumulate(x.source.of, reshape(g, x.source.of.shape));
    }
    if (x.source.kind !== "op" || x.source.op.backward === undefined) continue;
    const { op, inputs, attributes } = x.source;
    if (!inputs.some((input) => needed.has(input.id))) continue;
    const flowing = op.backward!({ inputs, output: x, gradient: g, attributes });
    inputs.forEach((input, i) => {
      const part = flowing[i];
      if (part !== null && part !== undefined) accumulate(input, part);
    });
  }
  return wrt.map((x) => gradient.get(x.id) ?? null);
};
