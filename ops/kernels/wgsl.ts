/** Writes WGSL: declarations around a kernel's body, and the grid that it is dispatched over. */
import type { Binding, Kernel, Operand } from "../graph/kernel.ts";
import { conversions, halfAccess, halfElement } from "./f16_storage.ts";

/** The indices below `count`. */
export const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);

/** Lines of WGSL, one for each index below `count`. */
export const lines = (count: number, line: (i: number) => string): string =>
  range(count).map(line).join("\n");

/** An operand read as `array<vec4<f32>>` instead of `array<f32>`. */
export interface Vectors {
  /** The operand. */
  readonly vectors: Operand;
}

/** Binds an operand as vectors of four; its last axis has to be a multiple of 4. */
export const vectors = (operand: Operand): Vectors => ({ vectors: operand });

/** A kernel to be written. Operands and sizes are known to its WGSL under the names that they have here. */
export interface KernelSpec {
  /** Label of the kernel. */
  readonly label: string;
  /** Operands that are read. */
  readonly reads: Readonly<Record<string, Operand | Vectors>>;
  /** Operands that are written. */
  readonly writes: Readonly<Record<string, Operand | Vectors>>;
  /** Numbers that the WGSL reads as `p.name`. */
  readonly sizes?: Readonly<Record<string, number>>;
  /** Number of invocations, in workgroups on a `dispatchGrid`. Either this or `workgroups` is given. */
  readonly threads?: number;
  /** The grid of workgroups, or the operand that holds it when the kernel starts. */
  readonly workgroups?: readonly [number, number, number] | { readonly indirect: Operand };
  /** Invocations of a workgroup; 64 if not given. */
  readonly workgroupSize?: number;
  /** Whether it calls WGSL's functions of subgroups. */
  readonly subgroups?: boolean;
  /** WGSL at module level. */
  readonly functions?: string;
  /** The body of the entry point. */
  readonly main: string;
}

/**
 * Writes the declarations around a kernel's body.
 *
 * In `main`: every operand under its name as a storage array (of f32 also where f16 is stored, for which it has to be
 * read as `name[index]` or written as `name[index] = value;`, not both), every size as `p.name` (u32), `id` (the index
 * of this invocation, below `threads` where these are given), `lane` (index in the workgroup) and `group` (the
 * workgroup's coordinates); with `subgroups` also `subgroup` (index in the workgroup), `subgroups` (how many it has)
 * and `subgroupLane` (index in the subgroup). Sizes are a uniform and not constants, so that layers of different shape
 * share one pipeline: drivers compile at 0.1 to 1 s a shader, while a uniform size costs nothing that we could measure
 * (lavapipe 25.0, two cores, November 2026).
 */
export const kernel = (spec: KernelSpec): Kernel => {
  const size = spec.workgroupSize ?? 64;
  const guard = spec.threads === undefined ? "" : "if (id >= p.threads) { return; }";
  let code = `${spec.functions ?? ""}
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32${spec.subgroups ? SUBGROUP : ""}) {
  let id = (group.y * groups.x + group.x) * ${size}u + lane;
  ${guard}
  ${spec.main}
}`;

  const bindings: Binding[] = [];
  const declarations: string[] = [];
  const declare = (variable: string, type: string) =>
    declarations.push(`@group(0) @binding(${bindings.length}) ${variable}: ${type};`);
  const declareArray = (name: string, bound: Operand | Vectors, access: "read" | "write") => {
    const vector = "vectors" in bound;
    const operand = vector ? bound.vectors : bound;
    const isHalf = operand.dtype === "f16";
    const element = isHalf ? halfElement(vector) : vector ? `vec4<${operand.dtype}>` : operand.dtype;
    declare(`var<storage, ${access === "read" ? "read" : "read_write"}> ${name}`, `array<${element}>`);
    if (isHalf) code = halfAccess(code, name, vector, access);
    bindings.push({ operand, access });
  };
  for (const [name, operand] of Object.entries(spec.reads)) declareArray(name, operand, "read");
  for (const [name, operand] of Object.entries(spec.writes)) declareArray(name, operand, "write");

  const sizes: Record<string, number> = { ...spec.sizes };
  if (spec.threads !== undefined) sizes.threads = spec.threads;
  const names = Object.keys(sizes);
  if (names.length > 0) {
    declarations.push(`struct Sizes { ${names.map((name) => `${name}: u32`).join(", ")} }`);
    declare("var<uniform> p", "Sizes");
  }
  const half = bindings.find(({ operand }) => operand.dtype === "f16")?.operand;
  if (half !== undefined) {
    declarations.unshift("enable f16;");
    code += conversions(half.narrowing ?? "native");
  }
  if (spec.subgroups) declarations.unshift("enable subgroups;");
  return {
    label: spec.label,
    bindings,
    sizes: names.length === 0 ? null : Uint32Array.from(Object.values(sizes)),
    workgroups: spec.workgroups ?? dispatchGrid(Math.ceil(spec.threads! / size)),
    code: `${declarations.join("\n")}\n${code}`,
  };
};

const SUBGROUP = `,
        @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32,
        @builtin(subgroup_invocation_id) subgroupLane: u32`;

/** Workgroups along one side of a grid, at most: WebGPU's limit. */
const MAX_WORKGROUPS = 65535;

/**
 * A grid of at least `count` workgroups, `depth` times: a workgroup's index is `group.y * groups.x + group.x`, which
 * may be `count` or more.
 */
export const dispatchGrid = (count: number, depth = 1): [number, number, number] => {
  const y = Math.ceil(count / MAX_WORKGROUPS);
  return [Math.ceil(count / y), y, depth];
};
