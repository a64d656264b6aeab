/** Stochastic gradient descent with momentum, PyTorch's form: no dampening, no Nesterov. */
import { add, mul, sub } from "../../ops/arithmetic.ts";
import type { Optimizer, OptimizerUpdate } from "./optimizer.ts";

/** v ← momentum·v + g + decay·p;  p ← p − rate·v. Decays every parameter. */
export const sgd: Optimizer = (
  parameter,
  gradient,
  buffer,
  { rate, weightDecay, momentum },
): OptimizerUpdate => {
  const velocity = buffer();
  const next = add(mul(momentum, velocity), add(gradient, mul(weightDecay, parameter)));
  return { parameter: sub(parameter, mul(rate, next)), buffers: new Map([[velocity, next]]) };
};
