/**
 * Reductions of rows. One invocation reduces a row or, on a real GPU and if the row is long, a workgroup: its lanes
 * read neighbouring elements, and combine their results in a tree in workgroup memory or, where the adapter has
 * subgroups, first within each subgroup.
 */
import type { Kernel } from "../graph/kernel.ts";
import type { AdapterTraits, Variants } from "../graph/lowering.ts";
import { dispatchGrid } from "./wgsl.ts";

/** Elements of a row from which on a workgroup should reduce it on a GPU: an estimate, not measured. */
const LONG_ROW = 256;

/** How a kernel reduces rows: parts of its specification and WGSL expressions. */
export interface RowWork {
  /** How the kernel is dispatched; a part of its `KernelSpec`. */
  readonly launch:
    | { readonly threads: number }
    | {
      readonly workgroupSize: number;
      readonly workgroups: readonly [number, number, number];
      readonly subgroups: boolean;
    };
  /** WGSL at module level. */
  readonly functions: string;
  /** WGSL that sets `row`, and the first element `start` and the stride `step` of this lane; needs the size `rows`. */
  readonly origin: string;
  /** A WGSL expression: the maximum of a value over the lanes of a row, which all of them get. */
  readonly largest: (value: string) => string;
  /** A WGSL expression: the sum of a value over the lanes of a row, which all of them get. */
  readonly total: (value: string) => string;
}

/** A way to split so many rows among invocations. */
export type RowSplit = (rows: number) => RowWork;

/** Variants of kernels that reduce rows of `length` elements, the best guess for the adapter first. */
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
  // Subgroups come first: they take two barriers instead of eight or more. By the same change to its linear attention,
  // ONNX Runtime read a language model's prompt 1.29 times as fast (microsoft/onnxruntime #28412, an integrated GPU).
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
      workgroups: dispatchGrid(rows),
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

/**
 * WGSL of a function that combines a value of each lane by `f`, in the same order in every run: sums are reproducible.
 */
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

// WGSL does not specify which lanes form a subgroup, and a subgroup has 4 to 128 lanes. So each subgroup writes its
// result at its own index, and every lane combines the results in order: on most GPUs two to eight of them.
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
