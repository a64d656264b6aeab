/** GELU in its exact form, by the error function (Hendrycks and Gimpel 2016). */
import { defineElementwise, mul } from "./arithmetic.ts";
import type { Tensor } from "./graph/tensor.ts";

// Φ(x), the distribution function of the normal distribution, by Abramowitz and Stegun 7.1.26 (absolute error below
// 1e-7), for the negative tail, where nothing cancels. `exp` of a large negative number is 0, so large |x| needs no
// special case.
const NORMAL_CDF = /* wgsl */ `
fn normalCdf(x: T) -> T {
  let z = abs(x) * 0.70710678;
  let t = T(1.0) / (T(1.0) + 0.3275911 * z);
  let tail = 0.5 * t * (T(0.254829592) + t * (T(-0.284496736) + t * (T(1.421413741) + t * (T(-1.453152027)
    + t * 1.061405429)))) * exp(-z * z);
  return select(T(1.0) - tail, tail, x < T(0.0));
}`;

/** Φ(x) + x·φ(x) */
const geluSlope = defineElementwise(
  "geluSlope",
  ([x]) => `(normalCdf(${x}) + ${x} * 0.39894228 * exp(-0.5 * ${x} * ${x}))`,
  undefined,
  NORMAL_CDF,
);
const geluOp = defineElementwise(
  "gelu",
  ([x]) => `${x} * normalCdf(${x})`,
  ({ inputs: [x], gradient }) => [mul(gradient, geluSlope([x]))],
  NORMAL_CDF,
);

/** x·Φ(x), elementwise, where Φ is the distribution function of the normal distribution. */
export const gelu = (x: Tensor): Tensor => geluOp([x]);
