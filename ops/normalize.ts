/** Euclidean normalisation. */
import { div, maximum, mul, sqrt } from "./arithmetic.ts";
import type { Tensor } from "./graph/tensor.ts";
import { rowSums } from "./reduce.ts";

/**
 * x / max(‖x‖, 1e-12) over the last axis: [..., D] to [..., D], as PyTorch's `normalize`.
 *
 * The square of the norm is what is bounded: the root's derivative at 0 would turn the gradient of a zero row into NaN.
 */
export const normalize = (x: Tensor): Tensor => div(x, sqrt(maximum(rowSums([mul(x, x)]), 1e-24)));
