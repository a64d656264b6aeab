/** Adds a bias to rows of which only the first may be in use. */
import { defineElementwise } from "./arithmetic.ts";
import { sizeOf } from "./graph/shape.ts";
import { reshape, type Tensor } from "./graph/tensor.ts";
import { columnSums } from "./reduce.ts";

/**
 * x [..., C] + bias [C]. With `count` ([1], u32) the gradient of the bias sums over the first `count` rows only; the
 * others may hold anything, NaN included.
 */
export const addBias = (x: Tensor, bias: Tensor, count?: Tensor): Tensor => addBiasOp([x, bias], { count });

const addBiasOp = defineElementwise<{ readonly count?: Tensor }>(
  "addBias",
  ([x, bias]) => `${x} + ${bias}`,
  ({ inputs: [x, bias], gradient, attributes: { count } }) => {
    const [C] = bias.shape;
    return [gradient, reshape(columnSums([reshape(gradient, [1, sizeOf(x.shape) / C, C])], count), [C])];
  },
);
