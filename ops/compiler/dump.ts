/**
 * Dumps of lowered programs as text, without a device: for debugging kernels, and for tools that inspect their
 * instructions or estimate their time. The same graph always gives the same bytes.
 */
import { bytesOf, type Kernel } from "../graph/kernel.ts";
import type { AdapterTraits, Exchange } from "../graph/lowering.ts";
import type { Shape } from "../graph/shape.ts";
import { isOp, type OpTensor, storageOf, type Tensor } from "../graph/tensor.ts";
import { exchangeOf, type Graph, isScalar } from "./graph.ts";
import { type Choices, GUESSED, workOf } from "./kernel_selection.ts";
import { lower, type Lowered, type Recomputed } from "./lower.ts";
import type { MemoryPlan } from "./memory_plan.ts";

/** What a program is dumped for, see `lower`. */
export interface DumpOptions {
  /** Whether the input of this name stays on the device between runs. */
  readonly isState: (name: string) => boolean;
  /** The first variants if not given. */
  readonly choices?: Choices;
  /** Also dumps the kernels that tuning could choose instead. */
  readonly everyVariant?: boolean;
}

/** The content of `kernels.json`. */
export interface DumpedProgram {
  /** The label of the graph. */
  readonly label: string;
  /** How large activations are stored. */
  readonly precision: "f32" | "f16";
  /** The adapter that the kernels are for. */
  readonly traits: AdapterTraits;
  /** Bytes by group, at the peak in all, and reserved. */
  readonly memory: Pick<MemoryPlan, "groups" | "needed" | "total">;
  /** What is recomputed to stay within the memory limit. */
  readonly recomputed: Recomputed;
  /** Where it waits for other ranks. */
  readonly syncPoints: readonly DumpedSyncPoint[];
  /** All kinds of work that have several variants. */
  readonly choices: readonly {
    readonly work: string;
    readonly variants: readonly string[];
    readonly chosen: string;
    readonly tuned: boolean;
  }[];
  /** The dispatches of a run, in order. */
  readonly kernels: readonly DumpedKernel[];
  /** For each choice the dispatches of the variants that were not chosen; empty unless asked for. */
  readonly variants: readonly DumpedKernel[];
}

/** Where a program waits for other ranks. */
export interface DumpedSyncPoint {
  /** How many kernels run before it. */
  readonly after: number;
  /** The segment is the one that needs the result: segment i begins after sync point i − 1. */
  readonly exchanges: readonly {
    readonly kind: Exchange["kind"];
    readonly bytes: number;
    readonly segment: number;
  }[];
}

/** A dispatch of a kernel. */
export interface DumpedKernel {
  /** The label of the kernel. */
  readonly label: string;
  /** The file with its WGSL. */
  readonly shader: string;
  /** The op that it computes, or computes a part of; of a fused kernel that of its first result. */
  readonly op: string;
  /** The kind of work, under which tuning remembers the fastest variant. */
  readonly work: string;
  /** "" where the graph names none. */
  readonly stage: string;
  /** Null where there is only one. */
  readonly variant: string | null;
  /** The number in graph.txt of the tensor that it produces. */
  readonly tensor: number;
  /** The shape of that tensor. */
  readonly shape: Shape;
  /** Where it recomputes that tensor: the number of the one that needs it again. */
  readonly recomputedFor: number | null;
  /** Floating-point operations of the op in all its dispatches together; 0 where it does not say. */
  readonly opFlops: number;
  /** In the order of their binding numbers. */
  readonly operands: readonly {
    readonly access: "read" | "write";
    readonly dtype: string;
    readonly shape: Shape;
    readonly bytes: number;
    readonly storage: number;
  }[];
  /** Null where another kernel computes them. */
  readonly workgroups: readonly [number, number, number] | null;
  /** Invocations of a workgroup. */
  readonly workgroupSize: number;
  /** The words of the uniform buffer, as `struct Sizes` in the shader names them; null if it has none. */
  readonly sizes: readonly number[] | null;
}

/**
 * The program that an adapter with such traits gets for a graph, as texts by file name:
 *
 * - `graph.txt`: every tensor with its op, inputs, type, shape and stage, and the kernel that computes it;
 * - `schedule.txt`: the kernels in order, what they produce or recompute, and the sync points between them;
 * - `memory.txt`: the memory plan: buffers, and which storage is where in them from which kernel to which;
 * - `kernels.json`: each dispatch in numbers, a `DumpedProgram`;
 * - a `.wgsl` for each different shader, named by its first label and a hash of its code.
 */
export const dumpProgram = (
  graph: Graph,
  traits: AdapterTraits,
  { isState, choices = GUESSED, everyVariant = false }: DumpOptions,
): Readonly<Record<string, string>> => {
  const lowered = lower(graph, traits, isState, choices);
  const shaders = shaderFiles();
  const numbers = new Map(lowered.fused.live.map((x, i) => [x, i]));
  const dumped = (of: Lowered, kernels: Iterable<number>) =>
    Array.from(kernels, (i) => dumpedKernel(of, i, numbers, shaders.fileOf));
  const kernels = dumped(lowered, lowered.kernels.keys());
  const variants = everyVariant
    ? otherVariants(graph, traits, isState, lowered).flatMap((other) => dumped(other.lowered, other.kernels))
    : [];
  const { plan: { groups, needed, total }, recomputed, syncPoints } = lowered;
  const program: DumpedProgram = {
    label: graph.label,
    precision: graph.precision ?? "f32",
    traits,
    memory: { groups, needed, total },
    recomputed,
    syncPoints: syncPoints.map(({ after, exchanges }) => ({
      after,
      exchanges: exchanges.map(({ kind, from, segment }) => ({ kind, bytes: bytesOf(from), segment })),
    })),
    choices: lowered.choices.map(({ work, variants, chosen, tuned }) => ({ work, variants, chosen, tuned })),
    kernels,
    variants,
  };
  return {
    "graph.txt": graphText(lowered, numbers),
    "schedule.txt": scheduleText(program),
    "memory.txt": memoryText(lowered),
    "kernels.json": jsonLines(program),
    ...shaders.files,
  };
};

/** JSON with a line for each kernel. */
const jsonLines = ({ kernels, variants, ...program }: DumpedProgram): string => {
  const array = (name: string, values: readonly unknown[]) =>
    `"${name}": [\n${values.map((value) => JSON.stringify(value)).join(",\n")}\n]`;
  const rest = Object.entries(program).map(([name, value]) => `"${name}": ${JSON.stringify(value)}`);
  return `{\n${[...rest, array("kernels", kernels), array("variants", variants)].join(",\n")}\n}\n`;
};

/** Names shaders, each once. */
const shaderFiles = () => {
  const files: Record<string, string> = {};
  const names = new Map<string, string>();
  return {
    files,
    fileOf: ({ label, code }: Kernel): string => {
      const known = names.get(code);
      if (known !== undefined) return known;
      let name = `${label.replace(/\W+/g, "_").slice(0, 60)}-${hashOf(code)}`;
      while (`${name}.wgsl` in files) name += "x"; // another shader of the same label and hash
      names.set(code, `${name}.wgsl`);
      files[`${name}.wgsl`] = code;
      return `${name}.wgsl`;
    },
  };
};

/** FNV-1a of 32 bits, in hexadecimal. */
const hashOf = (text: string): string => {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
};

const dumpedKernel = (
  { kernels, produces, scheduledFor, variants, fused }: Lowered,
  index: number,
  numbers: ReadonlyMap<Tensor, number>,
  fileOf: (kernel: Kernel) => string,
): DumpedKernel => {
  const [kernel, x] = [kernels[index], produces[index]];
  const { op, inputs } = x.source;
  const members = fused.groups.find(([first]) => first === x)!;
  return {
    label: kernel.label,
    shader: fileOf(kernel),
    op: op.name,
    work: workOf(members, fused.isInlined, (read) => fused.half.has(storageOf(read))),
    stage: fused.graph.stageOf?.(scheduledFor[index]) ?? "",
    variant: variants[index],
    tensor: numbers.get(x)!,
    shape: x.shape,
    recomputedFor: scheduledFor[index] === x ? null : numbers.get(scheduledFor[index])!,
    opFlops: op.flops?.(inputs, x.shape) ?? 0,
    operands: kernel.bindings.map(({ access, operand }) => {
      const { dtype, shape, storage } = operand;
      return { access, dtype, shape, bytes: bytesOf(operand), storage };
    }),
    workgroups: "indirect" in kernel.workgroups ? null : kernel.workgroups,
    workgroupSize: Number(kernel.code.match(/@workgroup_size\((\d+)/)?.[1] ?? 0),
    sizes: kernel.sizes === null ? null : [...kernel.sizes],
  };
};

/** For each variant by its index: the graph lowered with it, and its kernels for choices that were made differently. */
const otherVariants = (
  graph: Graph,
  traits: AdapterTraits,
  isState: (name: string) => boolean,
  { choices }: Lowered,
): readonly { readonly lowered: Lowered; readonly kernels: readonly number[] }[] => {
  const most = Math.max(0, ...choices.map(({ variants }) => variants.length));
  return Array.from({ length: most }, (_, i) => {
    const different = choices.filter(({ variants, chosen }) => i < variants.length && variants[i] !== chosen);
    const examples = new Set(different.map(({ produces }) => produces));
    const lowered = lower(graph, traits, isState, (_, variants) => variants[i]);
    return {
      lowered,
      kernels: [...lowered.kernels.keys()].filter((at) => examples.has(lowered.produces[at])),
    };
  });
};

/** One line for each tensor that the results depend on. */
const graphText = (lowered: Lowered, numbers: ReadonlyMap<Tensor, number>): string => {
  const { fused: { graph, live } } = lowered;
  const nameOf = (x: Tensor) => `%${numbers.get(x)!}`;
  const placementOf = placements(lowered, nameOf);
  const rows = live.map((x) => [
    nameOf(x),
    "=",
    sourceText(x, nameOf),
    `${x.dtype} [${x.shape.join(", ")}]`,
    isOp(x) ? graph.stageOf?.(x) ?? "" : "",
    placementOf(x),
  ]);
  const outputs = Object.entries(graph.outputs).map(([name, x]) => `output ${name} = ${nameOf(x)}`);
  const updates = [...graph.updates ?? []].map(([state, next]) => `next ${nameOf(state)} = ${nameOf(next)}`);
  return [
    `# ${graph.label}: ${live.length} tensors, ${lowered.fused.scheduled.length} of them computed by kernels of their own`,
    "# number = source, type and shape, stage, storage",
    ...aligned(rows),
    ...outputs,
    ...updates,
    "",
  ].join("\n");
};

const sourceText = ({ source }: Tensor, nameOf: (x: Tensor) => string): string => {
  switch (source.kind) {
    case "input":
      return `input "${source.name}"`;
    case "constant":
      return source.data.length === 1 ? `constant ${source.data[0]}` : "constant";
    case "reshape":
      return `${source.differentiable ? "reshape" : "stopGradient"}(${nameOf(source.of)})`;
    case "op": {
      const attributes = attributesText(source.attributes, nameOf);
      return `${source.op.name}(${source.inputs.map(nameOf).join(", ")})${attributes}`;
    }
  }
};

/** Attributes of an op as JSON: tensors by their number, functions left out. */
const attributesText = (attributes: unknown, nameOf: (x: Tensor) => string): string => {
  if (attributes === undefined) return "";
  const text = JSON.stringify(attributes, (_, value) => isTensor(value) ? nameOf(value) : value);
  return text === "{}" ? "" : ` ${text}`;
};

const isTensor = (value: unknown): value is Tensor =>
  typeof value === "object" && value !== null && "source" in value && "shape" in value;

/** Says of a tensor where its values are stored, and which kernel computes them. */
const placements = (
  { fused, inPlace, constants }: Lowered,
  nameOf: (x: Tensor) => string,
): (x: Tensor) => string => {
  const fusedInto = computingKernels(fused);
  const groupOf = new Map(
    fused.groups.flatMap((members) => members.map((x): [Tensor, OpTensor] => [x, members[0]])),
  );
  const bound = new Set(constants);
  return (x) => {
    if (isScalar(x) && !bound.has(x)) return "in uniforms";
    if (!isOp(x)) return "";
    if (fused.isInlined(x)) return `fused into ${fusedInto(x).map(nameOf).join(", ")}`;
    const exchange = exchangeOf(x);
    const current = inPlace.get(x);
    const computedWith = groupOf.get(x)!;
    return [
      exchange === null
        ? "stored"
        : `exchanged (${exchange.kind}${exchange.overlappable ? ", overlappable" : ""})`,
      fused.half.has(x) ? " in f16" : "",
      current === undefined ? "" : ` over ${nameOf(current)}`,
      computedWith === x ? "" : `, computed with ${nameOf(computedWith)}`,
    ].join("");
  };
};

/** Finds for an inlined tensor the scheduled tensors whose kernels compute it. */
const computingKernels = ({ live, isInlined }: Lowered["fused"]): (x: Tensor) => readonly Tensor[] => {
  const readers = Map.groupBy(
    live.filter(isOp).flatMap((reader) => reader.source.inputs.map((x) => ({ read: storageOf(x), reader }))),
    ({ read }) => read,
  );
  const found = new Map<Tensor, readonly Tensor[]>();
  const kernelsOf = (x: Tensor): readonly Tensor[] => {
    const known = found.get(x);
    if (known !== undefined) return known;
    const kernels = (readers.get(x) ?? []).flatMap(({ reader }) =>
      isInlined(reader) ? kernelsOf(reader) : [reader]
    );
    const each = [...new Set(kernels)].sort((a, b) => a.id - b.id);
    found.set(x, each);
    return each;
  };
  return kernelsOf;
};

/** One line for each kernel, and one for each sync point before the kernel that follows it. */
const scheduleText = ({ label, kernels, syncPoints }: DumpedProgram): string => {
  const rows = kernels.map((kernel, i) => [
    String(i),
    kernel.label,
    `%${kernel.tensor} [${kernel.shape.join(", ")}]`,
    kernel.op,
    kernel.stage,
    kernel.recomputedFor === null ? "" : `recomputed for %${kernel.recomputedFor}`,
    kernel.variant ?? "",
    kernel.workgroups?.join("×") ?? "indirect",
    kernel.shader,
  ]);
  const lines = aligned(rows);
  const pointsAt = Map.groupBy(syncPoints.entries(), ([, { after }]) => after);
  const pointsText = (after: number) =>
    (pointsAt.get(after) ?? []).map(([i, { exchanges }]) => {
      const each = exchanges.map(({ kind, bytes, segment }) =>
        `${kind} of ${bytes} bytes for segment ${segment}`
      );
      return `--- sync point ${i}: ${each.join(", ")}`;
    });
  return [
    `# ${label}: ${kernels.length} kernels, ${syncPoints.length} sync points`,
    "# kernel, label, tensor that it produces, op, stage, recomputation, variant, workgroups, shader",
    ...lines.flatMap((line, i) => [...pointsText(i), line]),
    ...pointsText(lines.length),
    "",
  ].join("\n");
};

/** Buffers and the storages in them, in the order of their addresses; and the storages that always exist. */
const memoryText = ({ plan, lifetimes, fused }: Lowered): string => {
  const row = (offset: number | string, storage: number) => {
    const { name, bytes, group, first, last } = lifetimes[storage];
    const kernels = group === "activations" || group === "scratch" ? `${first}–${last}` : "always";
    return [`  ${offset}`, String(bytes), kernels, group, `storage ${storage}`, name];
  };
  const resident = lifetimes.filter(({ group }) => group !== "activations" && group !== "scratch");
  return [
    `# ${fused.graph.label}: ${plan.needed} bytes at the peak, ${plan.total} reserved`,
    ...Object.entries(plan.groups).map(([group, bytes]) => `# ${group}: ${bytes} bytes`),
    "# offset in the buffer and size in bytes, first and last kernel, group, storage, name",
    ...plan.slots.flatMap(({ bytes, allocations }, i) => [
      `buffer ${i}: ${bytes} bytes`,
      ...aligned(
        allocations.toSorted((a, b) =>
          a.offset - b.offset || lifetimes[a.storage].first - lifetimes[b.storage].first
        )
          .map(({ storage, offset }) => row(offset, storage)),
      ),
    ]),
    "buffers of their own:",
    ...aligned(resident.map(({ storage }) => row("", storage))),
    "",
  ].join("\n");
};

/** Widest column that lines are aligned by: a few sums have hundreds of inputs. */
const WIDEST = 60;

/** Rows of cells as lines with aligned columns. */
const aligned = (rows: readonly (readonly string[])[]): readonly string[] => {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.min(WIDEST, Math.max(...rows.map((row) => row[column].length)))
  );
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column])).join("  ").trimEnd());
};
