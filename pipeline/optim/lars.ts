/** LARS (You et al. 2017) as the published code uses it. */
import { add, div, greater, mul, sqrt, sub, where } from "../../ops/arithmetic.ts";
import { reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { totals } from "../../ops/reduce.ts";
import { slice } from "../../ops/slice.ts";
import type { Optimizer, OptimizerUpdate } from "./optimizer.ts";

/** The trust coefficient. */
export const TRUST = 0.001;

/**
 *     g ← g + decay·p;  g ← g · 0.001·‖p‖ / ‖g‖;  v ← momentum·v + g;  p ← p − rate·v
 *
 * Parameters of one dimension have neither decay nor scaling. The ratio ‖p‖ / ‖g‖ · 0.001 is 1 where a norm is 0.
 */
export const lars: Optimizer = (
  parameter,
  gradient,
  buffer,
  { rate, weightDecay, momentum },
): OptimizerUpdate => {
  const velocity = buffer();
  const scaled = parameter.shape.length <= 1
    ? gradient
    : trusted(parameter, add(gradient, mul(weightDecay, parameter)));
  const next = add(mul(momentum, velocity), scaled);
  return { parameter: sub(parameter, mul(rate, next)), buffers: new Map([[velocity, next]]) };
};

const trusted = (parameter: Tensor, gradient: Tensor): Tensor => {
  const norms = sqrt(totals([mul(parameter, parameter), mul(gradient, gradient)]));
  const [paramNorm, gradNorm] = [0, 1].map((i) => reshape(slice(norms, 0, i, 1), []));
  const ratio = where(greater(mul(paramNorm, gradNorm), 0), div(mul(TRUST, paramNorm), gradNorm), 1);
  return mul(ratio, gradient);
};
