/** 1 where x is infinite or no number, else 0; no gradient. By its bits, as drivers may assume that there is no such x. */
import { defineElementwise } from "./arithmetic.ts";
import type { Tensor } from "./graph/tensor.ts";

export const nonFinite = (x: Tensor): Tensor => nonFiniteOp([x]);

const nonFiniteOp = defineElementwise(
  "nonFinite",
  ([x]) => `nonFinite(${x})`,
  undefined,
  /* wgsl */ `
fn nonFinite(x: T) -> T {
  return select(T(0.0), T(1.0), (bitcast<U>(x) & U(0x7f800000u)) == U(0x7f800000u));
}`,
);
