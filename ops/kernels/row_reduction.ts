/**
 * Kernels that reduce rows. A row is the work of one invocation or, on a real GPU and if it is long, of a workgroup,
 * whose lanes then read neighbours and combine what they found: in workgroup memory or, where the adapter has subgroups,
 * first within each of those.
 */
import type { Kernel } from "../graph/kernel.ts";
import type { AdapterTraits, Variants } from "../graph/lowering.ts";

const LONG_ROW = 256;

export interface RowWork {
  /** How the kernel is started; for the specification of `kernel`. */
  readonly launch:
    | { readonly threads: number }
    | {
      readonly workgroupSize: number;
      readonly workgroups: readonly [number, number, number];
      readonly subgroups: boolean;
    };
  readonly functions: string;
  /** WGSL that sets `row`, and `start` and `step` for walking through it; needs the size `rows`. */
  readonly origin: string;
  /** WGSL expressions: the largest and the sum of what the invocations of a row found, for all of them to see. */
  readonly largest: (value: string) => string;
  readonly total: (value: string) => string;
}

/** A way to split this many rows among invocations. */
export type RowSplit = (rows: number) => RowWork;

/** The kernels for each way to split rows of `length` elements, the best guess for the adapter first. */
export const rowVariants = (
  length: number,
  adapter: AdapterTraits,
  kernels: (split: RowSplit) => readonly Kernel[],
): Variants =>
  Object.fromEntries(
    Object.entries(splits(length, adapter)).map(([name, split]) => [name, () => kernels(split)]),
  );

const splits = (
  length: number,
  { cpu, minSubgroupSize }: AdapterTraits,
): Readonly<Record<string, RowSplit>> => {
  const alone = { "a row an invocation": rowByOne };
  // Subgroups come first: they wait at two barriers instead of eight or more. Where ONNX Runtime's linear attention took
  // the same step, a language model read its prompt 1.29 times as fast (microsoft/onnxruntime #28412, an integrated GPU).
  const together = {
    ...minSubgroupSize > 0 && {
      "a row 64 invocations, by subgroups": rowByMany(64, true),
      "a row 256 invocations, by subgroups": rowByMany(256, true),
    },
    "a row 64 invocations": rowByMany(64, false),
    "a row 256 invocations": rowByMany(256, false),
  };
  if (cpu || length < 64) return alone;
  return length < LONG_ROW ? { ...alone, ...together } : { ...together, ...alone };
};

const rowByOne: RowSplit = (rows) => ({
  launch: { threads: rows },
  functions: "",
  origin: "let row = id; let start = 0u; let step = 1u;",
  largest: (value) => value,
  total: (value) => value,
});

const rowByMany = (lanes: number, subgroups: boolean): RowSplit => (rows) => {
  const [combination, place] = subgroups
    ? [subgroupReduction, "subgroup, subgroups"]
    : [treeReduction(lanes), "lane"];
  return {
    launch: {
      workgroupSize: lanes,
      workgroups: [Math.min(rows, 65535), Math.ceil(rows / 65535), 1],
      subgroups,
    },
    functions: `fn add(a: f32, b: f32) -> f32 { return a + b; }
var<workgroup> parts: array<f32, ${lanes}>;
${combination("largest", "max", "subgroupMax")}
${combination("total", "add", "subgroupAdd")}`,
    origin: `let row = group.y * groups.x + group.x; let start = lane; let step = ${lanes}u;
  if (row >= p.rows) { return; }`,
    largest: (value) => `largest(${value}, ${place})`,
    total: (value) => `total(${value}, ${place})`,
  };
};

/** WGSL of a function that combines a value of each lane by `f`, in the same order in every run. */
type Combination = (name: string, f: string, ofSubgroup: string) => string;

const treeReduction = (lanes: number): Combination => (name, f) => /* wgsl */ `
fn ${name}(value: f32, lane: u32) -> f32 {
  workgroupBarrier(); // everyone has read what was combined before
  parts[lane] = value;
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { parts[lane] = ${f}(parts[lane], parts[lane + half]); }
  }
  workgroupBarrier();
  return parts[0];
}`;

// WGSL promises nothing about which lanes form a subgroup, and subgroups are from 4 to 128 lanes wide. So each puts its part
// at its own number, and everyone reads the parts one after the other: on most GPUs there are two to eight.
const subgroupReduction: Combination = (name, f, ofSubgroup) => /* wgsl */ `
fn ${name}(value: f32, subgroup: u32, subgroups: u32) -> f32 {
  workgroupBarrier(); // everyone is out of loops, and has read what was combined before
  let part = ${ofSubgroup}(value);
  if (subgroupElect()) { parts[subgroup] = part; }
  workgroupBarrier();
  var result = parts[0];
  for (var i = 1u; i < subgroups; i++) { result = ${f}(result, parts[i]); }
  return result;
}`;
