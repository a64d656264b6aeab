/**
 * Kernels that reduce rows. A row is the work of one invocation or, on a real GPU and if it is long, of a workgroup,
 * whose lanes then read neighbours and combine what they found in workgroup memory.
 */
import type { Kernel } from "./kernel.ts";
import type { AdapterTraits, Variants } from "./tensor.ts";

const LONG_ROW = 256;

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

/** How to split `rows` of `length` elements among invocations, as is best for most rows of that length. */
export const rowWork = (rows: number, length: number, adapter: AdapterTraits): RowWork =>
  Object.values(waysOf(rows, length, adapter))[0];

/** Kernels for each way to split rows, the best guess for the adapter first. */
export const rowVariants = (
  rows: number,
  length: number,
  adapter: AdapterTraits,
  kernelOf: (work: RowWork) => Kernel,
): Variants =>
  Object.fromEntries(
    Object.entries(waysOf(rows, length, adapter)).map(([name, work]) => [name, () => [kernelOf(work)]]),
  );

const waysOf = (
  rows: number,
  length: number,
  { software }: AdapterTraits,
): Readonly<Record<string, RowWork>> => {
  const alone = { "a row an invocation": rowByOne(rows) };
  const together = {
    "a row 64 invocations": rowByMany(rows, 64),
    "a row 256 invocations": rowByMany(rows, 256),
  };
  if (software || length < 64) return alone;
  return length < LONG_ROW ? { ...alone, ...together } : { ...together, ...alone };
};

const rowByOne = (rows: number): RowWork => ({
  launch: { threads: rows },
  functions: "",
  origin: "let row = id; let start = 0u; let step = 1u;",
  largest: (value) => value,
  total: (value) => value,
});

const rowByMany = (rows: number, lanes: number): RowWork => ({
  launch: { workgroupSize: lanes, workgroups: [Math.min(rows, 65535), Math.ceil(rows / 65535), 1] },
  functions: `fn add(a: f32, b: f32) -> f32 { return a + b; }
var<workgroup> parts: array<f32, ${lanes}>;
${combination(lanes, "largest", "max")}
${combination(lanes, "total", "add")}`,
  origin: `let row = group.y * groups.x + group.x; let start = lane; let step = ${lanes}u;
  if (row >= p.rows) { return; }`,
  largest: (value) => `largest(${value}, lane)`,
  total: (value) => `total(${value}, lane)`,
});

const combination = (lanes: number, name: string, f: string) => /* wgsl */ `
fn ${name}(value: f32, lane: u32) -> f32 {
  parts[lane] = value;
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { parts[lane] = ${f}(parts[lane], parts[lane + half]); }
  }
  workgroupBarrier();
  let result = parts[0];
  workgroupBarrier(); // before anyone puts the next value in
  return result;
}`;
