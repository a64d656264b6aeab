/** Euclidean normalisation. */
import { div, maximum, mul, sqrt } from "./arithmetic.ts";
import type { Tensor } from "./graph/tensor.ts";
import { rowSums } from "./reduce.ts";

/**
 * x / max(‖x‖, 1e-12) over the last axis: [..., D] to [..., D], as PyTorch's `normalize`.
 *
 * The bound is on the square of the norm: the derivative of a root at 0 would make the gradient of a zero row NaN.
 */
export const normalize = (x: Tensor): Tensor => div(x, sqrt(maximum(rowSums([mul(x, x)]), 1e-24)));
