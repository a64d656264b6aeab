/** Stochastic gradient descent with momentum, PyTorch's form: no dampening, no Nesterov. */
import { add, mul, sub } from "../../ops/arithmetic.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";

export interface OptimizerOptions {
  /** Learning rate of this step, []. */
  readonly rate: Tensor;
  readonly weightDecay: number;
  readonly momentum: number;
}

/** A parameter and its velocity after a step with this gradient; all of one shape. */
export type Optimizer = (
  parameter: Tensor,
  gradient: Tensor,
  velocity: Tensor,
  options: OptimizerOptions,
) => { readonly parameter: Tensor; readonly velocity: Tensor };

/** v ← momentum·v + g + decay·p;  p ← p − rate·v. Decays every parameter. */
export const sgd: Optimizer = (parameter, gradient, velocity, { rate, weightDecay, momentum }) => {
  const next = add(mul(momentum, velocity), add(gradient, mul(weightDecay, parameter)));
  return { parameter: sub(parameter, mul(rate, next)), velocity: next };
};
