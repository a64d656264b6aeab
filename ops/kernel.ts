/** One compute shader with what it is bound to: the unit that ops lower to. */
import { conversions, halfAccess, halfElement } from "./_half_access.ts";
import { type DType, type Shape, sizeOf } from "./tensor.ts";

/** A piece of device memory that holds a tensor, or some of its rows. */
export interface Operand {
  readonly shape: Shape;
  /** How the elements lie in memory; kernels compute with f16 as with f32. */
  readonly dtype: DType | "f16";
  /** Which buffer; resolved by the memory plan. */
  readonly storage: number;
  /** Where in the buffer it starts, in elements. */
  readonly offset: number;
  /** Of f16: how kernels come to it; `native` if not given. */
  readonly narrowing?: Narrowing;
}

/** By the driver's conversion of f32 to f16; or by integers, where the driver takes long to compile its own. */
export type Narrowing = "native" | "integers";

export interface Binding {
  readonly operand: Operand;
  readonly access: "read" | "write";
}

export interface Kernel {
  readonly label: string;
  readonly code: string;
  /** In the order of their binding numbers; `sizes` follow them as a uniform. */
  readonly bindings: readonly Binding[];
  readonly sizes: Uint32Array | null;
  readonly workgroups: readonly [number, number, number] | { readonly indirect: Operand };
}

/** An operand read as `array<vec4<f32>>` instead of `array<f32>`. */
export interface Vectors {
  readonly vectors: Operand;
}
export const vectors = (operand: Operand): Vectors => ({ vectors: operand });

const MAX_WORKGROUPS = 65535;

/**
 * Writes the declarations around a kernel's body.
 *
 * In `main`: every operand under its name as a storage array (of f32 also where f16 is stored, for which it has to be
 * read as `name[index]` or written as `name[index] = value;`, not both), every size as `p.name` (u32), `id` (the index of this
 * invocation, below `threads` unless `unguarded`), `lane` (index in the workgroup) and `group` (the workgroup's
 * coordinates); with `subgroups` also `subgroup` (index in the workgroup), `subgroups` (how many it has) and `subgroupLane`
 * (index in the subgroup). Sizes are a uniform and not constants, so that layers of different shape share one pipeline:
 * drivers compile at 0.1 to 1 s a shader, while a uniform size costs nothing that we could measure.
 */
export const kernel = (spec: {
  readonly label: string;
  readonly reads: Readonly<Record<string, Operand | Vectors>>;
  readonly writes: Readonly<Record<string, Operand | Vectors>>;
  readonly sizes?: Readonly<Record<string, number>>;
  /** Number of invocations, folded into a grid; or the grid itself. */
  readonly threads?: number;
  readonly workgroups?: readonly [number, number, number] | { readonly indirect: Operand };
  readonly workgroupSize?: number;
  /** Calls WGSL's functions of subgroups. */
  readonly subgroups?: boolean;
  readonly functions?: string;
  readonly main: string;
}): Kernel => {
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
    workgroups: spec.workgroups ?? grid(Math.ceil(spec.threads! / size)),
    code: `${declarations.join("\n")}\n${code}`,
  };
};

const SUBGROUP = `,
        @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32,
        @builtin(subgroup_invocation_id) subgroupLane: u32`;

/** A count of workgroups as a grid whose sides stay below WebGPU's limit. */
const grid = (count: number): [number, number, number] => {
  const y = Math.ceil(count / MAX_WORKGROUPS);
  return [Math.ceil(count / y), y, 1];
};

/** Bytes of one element in memory. */
export const elementBytes = ({ dtype }: Pick<Operand, "dtype">): number => dtype === "f16" ? 2 : 4;

/** Bytes that an operand takes, in whole words. */
export const bytesOf = (operand: Pick<Operand, "shape" | "dtype">): number =>
  Math.ceil(sizeOf(operand.shape) * elementBytes(operand) / 4) * 4;

/** Bindings begin at multiples of so many elements (256 bytes). */
export const alignmentOf = (operand: Pick<Operand, "dtype">): number => 256 / elementBytes(operand);
