/** Finds infinities and NaN, by their bits: drivers may assume that values are finite. */
import { defineElementwise } from "./arithmetic.ts";
import type { Tensor } from "./graph/tensor.ts";

/** 1 where x is infinite or NaN, else 0, elementwise; no gradient. */
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
