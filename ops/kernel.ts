/** One compute shader with what it is bound to: the unit that ops lower to. */
import { type DType, type Shape, sizeOf } from "./tensor.ts";

/** A piece of device memory that holds a tensor, or some of its rows. */
export interface Operand {
  readonly shape: Shape;
  readonly dtype: DType;
  /** Which buffer; resolved by the memory plan. */
  readonly storage: number;
  /** Where in the buffer it starts, in elements. */
  readonly offset: number;
}

export interface Binding {
  readonly operand: Operand;
  readonly access: "read" | "write" | "uniform";
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
 * In `main`: every operand under its name as a storage array, every size as `p.name` (u32), `id` (the index of this
 * invocation, below `threads` unless `unguarded`), `lane` (index in the workgroup) and `group` (the workgroup's
 * coordinates). Sizes are a uniform and not constants, so that layers of different shape share one compiled pipeline:
 * drivers compile at 0.1 to 1 s a shader, while a uniform size costs nothing that we could measure.
 */
export const kernel = (spec: {
  readonly label: string;
  readonly reads: Readonly<Record<string, Operand | Vectors>>;
  readonly writes: Readonly<Record<string, Operand | Vectors>>;
  /** Operands of exactly 64 KiB read as uniform arrays of vec4<f32>. */
  readonly uniforms?: Readonly<Record<string, Operand>>;
  readonly sizes?: Readonly<Record<string, number>>;
  /** Number of invocations, folded into a grid; or the grid itself. */
  readonly threads?: number;
  readonly workgroups?: readonly [number, number, number] | { readonly indirect: Operand };
  readonly workgroupSize?: number;
  readonly functions?: string;
  readonly main: string;
}): Kernel => {
  const size = spec.workgroupSize ?? 64;
  const bindings: Binding[] = [];
  const declarations: string[] = [];
  const declare = (name: string, bound: Operand | Vectors, access: Binding["access"]) => {
    const operand = "vectors" in bound ? bound.vectors : bound;
    const element = "vectors" in bound ? "vec4<f32>" : operand.dtype;
    const mode = access === "read" ? "read" : "read_write";
    declarations.push(
      `@group(0) @binding(${bindings.length}) var<storage, ${mode}> ${name}: array<${element}>;`,
    );
    bindings.push({ operand, access });
  };
  for (const [name, operand] of Object.entries(spec.reads)) declare(name, operand, "read");
  for (const [name, operand] of Object.entries(spec.writes)) declare(name, operand, "write");
  for (const [name, operand] of Object.entries(spec.uniforms ?? {})) {
    const length = sizeOf(operand.shape) / 4;
    declarations.push(
      `@group(0) @binding(${bindings.length}) var<uniform> ${name}: array<vec4<f32>, ${length}>;`,
    );
    bindings.push({ operand, access: "uniform" });
  }

  const sizes: Record<string, number> = { ...spec.sizes };
  if (spec.threads !== undefined) sizes.threads = spec.threads;
  const names = Object.keys(sizes);
  if (names.length > 0) {
    declarations.push(
      `struct Sizes { ${names.map((name) => `${name}: u32`).join(", ")} }`,
      `@group(0) @binding(${bindings.length}) var<uniform> p: Sizes;`,
    );
  }
  const guard = spec.threads === undefined ? "" : "if (id >= p.threads) { return; }";
  return {
    label: spec.label,
    bindings,
    sizes: names.length === 0 ? null : Uint32Array.from(Object.values(sizes)),
    workgroups: spec.workgroups ?? grid(Math.ceil(spec.threads! / size)),
    code: `${declarations.join("\n")}
${spec.functions ?? ""}
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let id = (group.y * groups.x + group.x) * ${size}u + lane;
  ${guard}
  ${spec.main}
}`,
  };
};

/** A count of workgroups as a grid whose sides stay below WebGPU's limit. */
const grid = (count: number): [number, number, number] => {
  const y = Math.ceil(count / MAX_WORKGROUPS);
  return [Math.ceil(count / y), y, 1];
};

export const bytesOf = (operand: Pick<Operand, "shape">): number => sizeOf(operand.shape) * 4;
