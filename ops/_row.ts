/**
 * Kernels that reduce rows. A row is the work of one invocation or, on a real GPU and if it is long, of a workgroup,
 * whose lanes then read neighbours and combine what they found in workgroup memory.
 */
import type { AdapterTraits } from "./tensor.ts";

const LONG_ROW = 256;
const LANES = 64;

export interface RowWork {
  /** How the kernel is started; for the specification of `kernel`. */
  readonly launch:
    | { readonly threads: number }
    | { readonly workgroupSize: number; readonly workgroups: readonly [number, number, number] };
  readonly functions: string;
  /** WGSL that sets `row`, and `start` and `step` for walking through it; needs the size `rows`. */
  readonly origin: string;
  /** WGSL expressions: the largest and the sum of what the invocations of a row found, for all of them to see. */
  readonly largest: (value: string) => string;
  readonly total: (value: string) => string;
}

/** How to split `rows` of `length` elements among invocations. */
export const rowWork = (rows: number, length: number, { software }: AdapterTraits): RowWork =>
  software || length < LONG_ROW
    ? {
      launch: { threads: rows },
      functions: "",
      origin: "let row = id; let start = 0u; let step = 1u;",
      largest: (value) => value,
      total: (value) => value,
    }
    : {
      launch: { workgroupSize: LANES, workgroups: [Math.min(rows, 65535), Math.ceil(rows / 65535), 1] },
      functions: `fn add(a: f32, b: f32) -> f32 { return a + b; }
var<workgroup> parts: array<f32, ${LANES}>;
${combination("largest", "max")}
${combination("total", "add")}`,
      origin: `let row = group.y * groups.x + group.x; let start = lane; let step = ${LANES}u;
  if (row >= p.rows) { return; }`,
      largest: (value) => `largest(${value}, lane)`,
      total: (value) => `total(${value}, lane)`,
    };

const combination = (name: string, f: string) => /* wgsl */ `
fn ${name}(value: f32, lane: u32) -> f32 {
  parts[lane] = value;
  for (var half = ${LANES / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { parts[lane] = ${f}(parts[lane], parts[lane + half]); }
  }
  workgroupBarrier();
  let result = parts[0];
  workgroupBarrier(); // before anyone puts the next value in
  return result;
}`;
