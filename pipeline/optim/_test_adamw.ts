import { add, div, mul, sqrt, sub } from "../../ops/arithmetic.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";
import type { Optimizer } from "./optimizer.ts";

/** AdamW (Loshchilov and Hutter 2019) as a user might write it, for tests. */
export const adamW: Optimizer = (parameter, gradient, buffer, { rate, weightDecay }) => {
  const buffers = new Map<Tensor, Tensor>();
  const unbiased = (name: string, kept: number, value: Tensor) => {
    const [average, mass] = [buffer(name), buffer(`${name}_mass`, [])]; // mass: the same average of 1, 1 − kept^steps
    const next = add(mul(kept, average), mul(1 - kept, value));
    const nextMass = add(mul(kept, mass), 1 - kept);
    buffers.set(average, next).set(mass, nextMass);
    return div(next, nextMass);
  };
  const mean = unbiased("exp_avg", 0.9, gradient);
  const square = unbiased("exp_avg_sq", 0.999, mul(gradient, gradient));
  const direction = add(div(mean, add(sqrt(square), 1e-8)), mul(weightDecay, parameter));
  return { parameter: sub(parameter, mul(rate, direction)), buffers };
};
