/**
 * Lowering, the part of compiling that needs no device: drops what nothing uses, decides what is fused into what, turns
 * ops into kernels in an order of work, and plans memory.
 */
import { Schema } from "effect";
import {
  addUp,
  columnSumKernels,
  elementwiseKernels,
  isElementwise,
  isReduction,
  leavesOf,
  rowSumKernels,
} from "./fuse.ts";
import type { AdapterReport } from "./gpu.ts";
import { bytesOf, type Kernel, type Operand } from "./kernel.ts";
import { type MemoryPlan, planMemory, type Use } from "./memory.ts";
import { type AdapterTraits, type DType, type Shape, sizeOf, storageOf, type Tensor } from "./tensor.ts";

/** A pure step: which inputs it replaces by what, and what it hands back. */
export interface Graph {
  readonly label: string;
  /** State inputs and the values that they take for the next run. */
  readonly updates?: ReadonlyMap<Tensor, Tensor>;
  /** Small tensors that every run hands back. */
  readonly outputs: Readonly<Record<string, Tensor>>;
}

/** The graph needs more than this adapter offers: known before anything runs. */
export class PlanError extends Schema.TaggedError<PlanError>()("PlanError", {
  label: Schema.String,
  tensor: Schema.String,
  needs: Schema.Number,
  limit: Schema.Number,
  what: Schema.String,
}) {
  override get message() {
    const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    return `Cannot run ${this.label} on this adapter as ${this.tensor} needs ${
      mib(this.needs)
    }: its ${this.what} is ${mib(this.limit)}. Lower --batch-size or --image-size`;
  }
}

/** A graph as kernels in order, and the memory that they use. */
export interface Lowered {
  readonly kernels: readonly Kernel[];
  readonly plan: MemoryPlan;
  /** The buffer each tensor's values end up in. */
  readonly operandOf: (x: Tensor) => Operand;
  /** State whose next value does not lie in its place and has to be copied there after a run. */
  readonly copies: readonly { readonly from: Tensor; readonly to: Tensor }[];
  readonly inputs: readonly Tensor[];
  readonly constants: readonly Tensor[];
}

/** Lowers `graph` for an adapter; inputs for which `isState` holds live on between runs. */
export const lower = (graph: Graph, traits: AdapterTraits, isState: (name: string) => boolean): Lowered => {
  const updates = graph.updates ?? new Map<Tensor, Tensor>();
  const results = [...Object.values(graph.outputs), ...updates.values()];
  const live = reachable(results);
  const kept = new Set(results.map((x) => storageOf(x).id));
  const inlined = chooseInlined(live, kept, traits);

  const scheduled = live.filter((x) => x.source.kind === "op" && !inlined.has(x.id));
  const isInlined = (x: Tensor) => inlined.has(x.id);
  const readsOf = (x: Tensor): readonly Tensor[] => {
    if (isFused(x)) return leavesOf(x, isInlined)!.map((leaf) => leaf.tensor);
    return x.source.kind === "op" ? x.source.inputs.map(storageOf) : [];
  };

  // A next value takes the place of the current one where nothing reads the current one afterwards.
  const lastReader = new Map<Tensor, number>();
  for (const x of scheduled) for (const read of readsOf(x)) lastReader.set(read, x.id);
  const place = new Map<number, Tensor>();
  const copies: { from: Tensor; to: Tensor }[] = [];
  for (const [current, next] of updates) {
    const made = storageOf(next);
    if (made === current) continue;
    const overwrites = (lastReader.get(current) ?? -1) <= made.id && !place.has(made.id) &&
      isElementwise(made) &&
      !inlined.has(made.id) &&
      leavesOf(made, isInlined)!.every((leaf) =>
        leaf.tensor !== current ||
        (leaf.offset === 0 && leaf.layout.length <= 1 && leaf.layout.every((axis) => axis.stride === 1))
      ) && sizeOf(made.shape) === sizeOf(current.shape);
    if (overwrites) place.set(made.id, current);
    else copies.push({ from: next, to: current });
  }

  // Storage numbers: one a materialised tensor, and one a scratch area.
  const operands = new Map<number, Operand>();
  const reserved: { readonly name: string; readonly bytes: number }[] = [];
  const reserve = (shape: Shape, dtype: DType, name: string): Operand => {
    const operand = { shape, dtype, storage: reserved.length, offset: 0 };
    reserved.push({ name, bytes: bytesOf(operand) });
    return operand;
  };
  const operandOf = (x: Tensor): Operand => {
    const home = place.get(storageOf(x).id) ?? storageOf(x);
    let operand = operands.get(home.id);
    if (operand === undefined) {
      const { source } = home;
      const name = source.kind === "op"
        ? `${source.op.name} [${home.shape.join(", ")}]`
        : source.kind === "input"
        ? source.name
        : source.kind;
      operands.set(home.id, operand = reserve(home.shape, home.dtype, name));
    }
    return { ...operand, shape: x.shape };
  };

  const inputs = live.filter((x) => x.source.kind === "input");
  const inputNames = new Set(inputs.map((x) => x.source.kind === "input" ? x.source.name : ""));
  if (inputNames.size < inputs.length) {
    throw new Error(`two inputs of ${graph.label} share a name: ${[...inputNames]}`);
  }
  const stored = new Set([...scheduled.flatMap(readsOf), ...results.map(storageOf)]);
  const constants = live.filter((x) => x.source.kind === "constant" && stored.has(x));
  for (const x of [...inputs, ...constants]) operandOf(x);
  const kernels: Kernel[] = [];
  for (const x of scheduled) {
    if (x.source.kind !== "op") continue;
    const scratch = (shape: Shape, dtype: DType = "f32") => reserve(shape, dtype, "scratch");
    const context = { inlined: isInlined, operandOf, scratch, traits };
    const { op } = x.source;
    if (op.reduction === "columns") kernels.push(...columnSumKernels(x, context));
    else if (op.reduction === "rows") kernels.push(...rowSumKernels(x, context));
    else if (isElementwise(x)) kernels.push(...elementwiseKernels(x, context, place.get(x.id) ?? null));
    else kernels.push(...opKernels(x, operandOf, scratch, traits));
  }

  const uses = new Map<number, { readonly first: number; readonly last: number }>();
  const resident = new Map<number, Use["group"]>();
  for (const x of inputs) {
    const name = x.source.kind === "input" ? x.source.name : "";
    resident.set(operandOf(x).storage, isState(name) ? "state" : "batch");
  }
  for (const x of constants) resident.set(operandOf(x).storage, "constants");
  const until = new Set(results.map((x) => operandOf(x).storage));
  kernels.forEach((kernel, at) => {
    const touched = [
      ...kernel.bindings.map((binding) => binding.operand),
      ...("indirect" in kernel.workgroups ? [kernel.workgroups.indirect] : []),
    ];
    for (const { storage } of touched) {
      const use = uses.get(storage);
      uses.set(storage, { first: use?.first ?? at, last: at });
    }
  });
  const plan = planMemory(
    reserved.map(({ name, bytes }, storage) => ({
      storage,
      name,
      bytes,
      group: resident.get(storage) ?? (name === "scratch" ? "scratch" : "activations"),
      first: uses.get(storage)?.first ?? 0,
      last: until.has(storage) ? kernels.length : uses.get(storage)?.last ?? 0,
    })),
    kernels.length,
  );
  return { kernels, plan, operandOf, copies, inputs, constants };
};

/**
 * The kernels of an op that is not fused; in slices along its first axis where a tensor is larger than one binding, if
 * the op can be done so.
 */
const opKernels = (
  x: Tensor,
  operandOf: (x: Tensor) => Operand,
  scratch: (shape: Shape, dtype?: DType) => Operand,
  adapter: AdapterTraits,
): readonly Kernel[] => {
  if (x.source.kind !== "op") return [];
  const { op, attributes } = x.source;
  const inputs = x.source.inputs.map(operandOf);
  const output = operandOf(x);
  const whole = () => op.kernels!({ inputs, output, attributes, scratch, adapter });
  if ([...inputs, output].every((operand) => bytesOf(operand) <= adapter.maxBinding)) return whole();

  const slices = op.slices?.(x.source.inputs) ?? null;
  if (slices === null) return whole(); // refused when it is bound
  const sliced = [...slices.along.map((i) => inputs[i]), ...(slices.output === "rows" ? [output] : [])];
  const axisOf = (operand: Operand) => operand.shape.findIndex((size) => size !== 1);
  const rowOf = (operand: Operand) => sizeOf(operand.shape.slice(axisOf(operand) + 1));
  const rows = sliced[0].shape[axisOf(sliced[0])];
  // Slices start at multiples of 64 elements, where bindings may.
  const unit = Math.max(...sliced.map((operand) => 64 / greatestCommonDivisor(64, rowOf(operand))));
  const most = adapter.maxBinding / 4 / Math.max(...sliced.map(rowOf));
  const each = Math.floor(most / unit) * unit;
  const size = sizeOf(output.shape);
  if (each === 0 || (slices.output === "sum" && size % 64 !== 0)) return whole();

  const slice = (operand: Operand, first: number): Operand => ({
    ...operand,
    offset: operand.offset + first * rowOf(operand),
    shape: operand.shape.with(axisOf(operand), Math.min(each, rows - first)),
  });
  const parts = Math.ceil(rows / each);
  const partial = slices.output === "sum" ? scratch([parts, size]) : null;
  const kernels: Kernel[] = [];
  for (let part = 0; part < parts; part++) {
    kernels.push(...op.kernels!({
      inputs: inputs.map((operand, i) => (slices.along.includes(i) ? slice(operand, part * each) : operand)),
      output: partial === null
        ? slice(output, part * each)
        : { ...partial, offset: part * size, shape: output.shape },
      attributes,
      scratch,
      adapter,
    }));
  }
  return partial === null ? kernels : [...kernels, ...addUp(partial, output, 1, parts, size, scratch)];
};

const greatestCommonDivisor = (a: number, b: number): number => b === 0 ? a : greatestCommonDivisor(b, a % b);

const isFused = (x: Tensor): boolean => isElementwise(x) || isReduction(x);

/** All tensors that `results` depend on, in an order of work. */
const reachable = (results: readonly Tensor[]): readonly Tensor[] => {
  const found = new Map<number, Tensor>();
  const stack = [...results];
  while (stack.length > 0) {
    const x = stack.pop()!;
    if (found.has(x.id)) continue;
    found.set(x.id, x);
    if (x.source.kind === "view") stack.push(x.source.of);
    if (x.source.kind === "op") stack.push(...x.source.inputs);
  }
  return [...found.values()].sort((a, b) => a.id - b.id);
};

/**
 * Which elementwise tensors are computed inside the kernels that use them instead of being stored. One with a single
 * reader always is. One with several is where it reads at most two large tensors: computing it again then costs no more
 * memory traffic than storing it would.
 */
const chooseInlined = (
  live: readonly Tensor[],
  kept: ReadonlySet<number>,
  traits: AdapterTraits,
): Set<number> => {
  const readers = new Map<number, Tensor[]>();
  for (const x of live) {
    if (x.source.kind !== "op") continue;
    for (const input of x.source.inputs) {
      const storage = storageOf(input);
      readers.set(storage.id, [...readers.get(storage.id) ?? [], x]);
    }
  }
  const inlined = new Set<number>();
  const isInlined = (x: Tensor) => inlined.has(x.id);
  const most = traits.maxStorageBuffers - 2;
  for (const x of live) {
    if (!isFused(x)) continue;
    // Too many tensors for one shader, or read in ways that strides do not describe: store some inputs after all.
    let leaves = leavesOf(x, isInlined);
    while (leaves === null || new Set(leaves.map((leaf) => leaf.tensor.id)).size > most) {
      const candidates = x.source.kind === "op"
        ? x.source.inputs.map(storageOf).filter((input) => inlined.has(input.id))
        : [];
      if (candidates.length === 0) {
        throw new Error(`cannot fuse ${x.source.kind === "op" ? x.source.op.name : "?"}`);
      }
      const count = (input: Tensor) => leavesOf(input, isInlined)?.length ?? Infinity;
      inlined.delete(candidates.sort((a, b) => count(b) - count(a))[0].id);
      leaves = leavesOf(x, isInlined);
    }
    if (!isElementwise(x) || kept.has(x.id)) continue;
    const users = readers.get(x.id) ?? [];
    if (!users.every(isFused)) continue;
    const large = new Set(
      leaves.filter((leaf) => sizeOf(leaf.tensor.shape) >= sizeOf(x.shape)).map((l) => l.tensor.id),
    );
    if (users.length === 1 ? leaves.length <= 8 : large.size <= 2 && leaves.length <= 6) inlined.add(x.id);
  }
  return inlined;
};

/** What a lowered graph needs beyond these limits of an adapter, or null where it fits. */
export const overLimit = (
  label: string,
  { kernels, plan, inputs, operandOf }: Lowered,
  limits: AdapterReport["limits"],
): PlanError | null => {
  const refuse = (tensor: string, needs: number, what: string, limit: number) =>
    new PlanError({ label, tensor, needs, what, limit });
  const buffers = [
    ...inputs.map((x) => ({ name: (x.source as { name: string }).name, bytes: bytesOf(operandOf(x)) })),
    ...plan.slots.map(({ names: [name], bytes }) => ({ name, bytes })),
  ];
  const large = buffers.find(({ bytes }) => bytes > limits.maxBufferSize);
  if (large !== undefined) return refuse(large.name, large.bytes, "largest buffer", limits.maxBufferSize);
  for (const { label, bindings } of kernels) {
    for (const { operand } of bindings) {
      if (bytesOf(operand) <= limits.maxStorageBufferBindingSize) continue;
      const name = `${label} [${operand.shape.join(", ")}]`;
      return refuse(name, bytesOf(operand), "largest binding", limits.maxStorageBufferBindingSize);
    }
  }
  return null;
};
