/**
 * Lowering, the part of compiling that needs no device: drops what nothing uses, decides what is fused into what, turns
 * ops into kernels in an order of work, and plans memory.
 */
import { Schema } from "effect";
import type { Exchange } from "./collective.ts";
import {
  addUp,
  columnSumKernels,
  elementwiseKernels,
  fusedWork,
  isElementwise,
  isReduction,
  leavesOf,
  leavesOfAll,
  rowSumKernels,
  sumsOfMoments,
} from "./fuse.ts";
import { bundled } from "./bundle.ts";
import { type Choice, type Choices, chooser, GUESSED, workOf } from "./choices.ts";
import type { AdapterReport } from "./gpu.ts";
import { storedInHalf } from "./half.ts";
import { alignmentOf, bytesOf, elementBytes, type Kernel, type Operand } from "./kernel.ts";
import { type MemoryPlan, planMemory, type Use } from "./memory.ts";
import { scheduleWithin, type Work } from "./recompute.ts";
import type { ColumnSums } from "./reduce.ts";
import {
  type AdapterTraits,
  type LoweringContext,
  type MomentsWanted,
  type Shape,
  sizeOf,
  storageOf,
  type Tensor,
} from "./tensor.ts";

/** A pure step: which inputs it replaces by what, and what it hands back. */
export interface Graph {
  readonly label: string;
  /** State inputs and the values that they take for the next run. */
  readonly updates?: ReadonlyMap<Tensor, Tensor>;
  /** Small tensors that every run hands back. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** How activations and their gradients lie in memory: in f16 where it says so (half.ts). */
  readonly precision?: "f32" | "f16";
  /** Bytes of device memory that may be taken in all; what there is no room for is computed again instead of kept. */
  readonly memoryLimit?: number;
  /** Bytes that others take of it. */
  readonly memoryTaken?: number;
  /** Names the stage of work that a tensor belongs to, where the time of stages is of interest. */
  readonly stageOf?: (x: Tensor) => string;
}

/** The graph needs more than this adapter offers: known before anything runs. */
export class PlanError extends Schema.TaggedError<PlanError>()("PlanError", {
  label: Schema.String,
  tensor: Schema.NullOr(Schema.String), // null: all of it together
  needs: Schema.Number,
  limit: Schema.Number,
  what: Schema.String,
}) {
  override get message() {
    if (this.tensor === null) {
      const [unit, name] = this.needs < 2 ** 30 ? [2 ** 20, "MiB"] : [2 ** 30, "GiB"];
      const amount = (bytes: number) => `${(Math.ceil(100 * bytes / unit) / 100).toFixed(2)} ${name}`;
      return `Cannot run ${this.label} within ${amount(this.limit)} of device memory: ` +
        `it takes ${amount(this.needs)} even where it computes twice what it can. ` +
        "Raise --memory-limit, or lower --batch-size or --image-size";
    }
    const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    return `Cannot run ${this.label} on this adapter as ${this.tensor} needs ${
      mib(this.needs)
    }: its ${this.what} is ${mib(this.limit)}. Lower --batch-size or --image-size`;
  }
}

/** A graph as kernels in order, and the memory that they use. */
export interface Lowered {
  readonly kernels: readonly Kernel[];
  /** The tensor that each kernel works for. */
  readonly makes: readonly Tensor[];
  /** The tensor in whose turn each kernel runs: the one it makes, or one that reads what it makes once more. */
  readonly serves: readonly Tensor[];
  readonly recomputed: Recomputed;
  /** Where the program waits for other ranks; none in a program for one process. */
  readonly stops: readonly Stop[];
  readonly plan: MemoryPlan;
  /** The buffer each tensor's values end up in. */
  readonly operandOf: (x: Tensor) => Operand;
  /** State whose next value does not lie in its place and has to be copied there after a run. */
  readonly copies: readonly { readonly from: Tensor; readonly to: Tensor }[];
  readonly inputs: readonly Tensor[];
  readonly constants: readonly Tensor[];
  /** What could be done in several ways, each kind of work once. */
  readonly choices: readonly Choice[];
}

/** What is computed again instead of being kept, for want of memory. */
export interface Recomputed {
  readonly tensors: number;
  readonly bytes: number;
  /** The time that it takes, as a share of the time that all else takes; an estimate. */
  readonly work: number;
}

type Choose = LoweringContext<never>["choose"];

/** Exchanges that are made together. Segment i of the kernels lies between stops i − 1 and i. */
export interface Stop {
  /** How many kernels run before it. */
  readonly after: number;
  readonly exchanges: readonly {
    readonly kind: Exchange["kind"];
    readonly from: Operand;
    readonly to: Operand;
    /** The segment that the result has to be there for. */
    readonly segment: number;
  }[];
}

/**
 * Lowers `graph` for an adapter; inputs for which `isState` holds live on between runs. Where the graph's memory limit is
 * lower than can be, the plan is for about as few bytes as can be.
 */
export const lower = (
  graph: Graph,
  traits: AdapterTraits,
  isState: (name: string) => boolean,
  choices: Choices = GUESSED,
): Lowered => {
  const analysis = analysed(graph, traits);
  const usual = lowerInOrder(analysis, traits, isState, choices);
  const limit = (graph.memoryLimit ?? Infinity) - (graph.memoryTaken ?? 0);
  let best = usual.lowered;
  const { groups, needed, total } = best.plan;
  // What is always there, and what sharing buffers wastes, leave so much for all that comes and goes.
  let budget = limit - groups.state - groups.batch - groups.constants - (total - needed);
  for (let tries = 0; tries < 8 && best.plan.total > limit; tries++) {
    const { order, peak } = scheduleWithin(usual.works, budget);
    const { lowered } = lowerInOrder(analysis, traits, isState, choices, order);
    if (lowered.plan.total < best.plan.total) best = lowered;
    if (peak > budget) break;
    budget -= lowered.plan.total - limit + tries * 0.002 * limit; // more is wasted now
  }
  return best;
};

/** What a graph is made of: what is worked out in which order, what on the way, and what lies in memory in half. */
const analysed = (graph: Graph, traits: AdapterTraits) => {
  const updates = graph.updates ?? new Map<Tensor, Tensor>();
  const results = [...Object.values(graph.outputs), ...updates.values()];
  const live = reachable(results);
  const kept = new Set(results.map((x) => storageOf(x).id));
  const inlined = chooseInlined(live, kept, traits);

  const levels = levelsOf(live);
  const scheduled = live.filter((x) => x.source.kind === "op" && !inlined.has(x.id))
    .sort((a, b) => levels.get(a.id)! - levels.get(b.id)! || a.id - b.id);
  const isInlined = (x: Tensor) => inlined.has(x.id);
  const reads = new Map(scheduled.map((x) => [
    x,
    isFused(x)
      ? leavesOf(x, isInlined)!.map((leaf) => leaf.tensor)
      : x.source.kind === "op"
      ? x.source.inputs.map(storageOf)
      : [],
  ]));
  const readsOf = (x: Tensor): readonly Tensor[] => reads.get(x)!;
  const next = new Set([...updates.values()].map(storageOf));
  const most = traits.maxStorageBuffers;
  const bundles = bundled(scheduled, { next, levels, readsOf, inlined: isInlined, most });
  const half = graph.precision === "f16"
    ? storedInHalf({ made: scheduled, readsOf, kept })
    : new Set<number>();
  return { graph, updates, results, live, kept, isInlined, levels, scheduled, readsOf, bundles, half };
};

/** Lowers a graph whose bundles are made in `order` (of their places among `works`), some of them more than once. */
const lowerInOrder = (
  analysis: ReturnType<typeof analysed>,
  traits: AdapterTraits,
  isState: (name: string) => boolean,
  choices: Choices,
  order?: readonly number[],
): { readonly lowered: Lowered; readonly works: readonly Work[] } => {
  const { graph, updates, results, live, kept, isInlined, levels, scheduled, readsOf, bundles, half } =
    analysis;
  const turns = turnsOf(bundles, order);
  const turn = new Map(turns.flatMap(({ members }, i) => members.map((x) => [x.id, i] as const)));
  const leavesOfBundle = (x: Tensor) => leavesOfAll(turns[turn.get(x.id)!].members, isInlined)!;

  // A next value takes the place of the current one where nothing reads the current one afterwards.
  const lastReader = new Map<Tensor, number>();
  turns.forEach(({ members }, i) => members.flatMap(readsOf).forEach((read) => lastReader.set(read, i)));
  const place = new Map<number, Tensor>();
  const copies: { from: Tensor; to: Tensor }[] = [];
  for (const [current, next] of updates) {
    const made = storageOf(next);
    if (made === current) continue;
    const overwrites = isElementwise(made) && !place.has(made.id) &&
      (lastReader.get(current) ?? -1) <= (turn.get(made.id) ?? -1) &&
      !isInlined(made) &&
      leavesOfBundle(made).every((leaf) =>
        leaf.tensor !== current ||
        (leaf.offset === 0 && leaf.layout.length <= 1 && leaf.layout.every((axis) => axis.stride === 1))
      ) && sizeOf(made.shape) === sizeOf(current.shape);
    if (overwrites) place.set(made.id, current);
    else copies.push({ from: next, to: current });
  }

  // Storage numbers: one a materialised tensor, and one a scratch area.
  const operands = new Map<number, Operand>();
  const reserved: { readonly name: string; readonly bytes: number }[] = [];
  const narrowing = traits.software ? "integers" : "native";
  const reserve = (shape: Shape, dtype: Operand["dtype"], name: string): Operand => {
    const operand: Operand = { shape, dtype, storage: reserved.length, offset: 0, narrowing };
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
      operands.set(home.id, operand = reserve(home.shape, half.has(home.id) ? "f16" : home.dtype, name));
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
  const makes: Tensor[] = [];
  const serves: Tensor[] = [];
  const chosen = new Map<string, Choice>();
  const wanted = momentsWanted(scheduled);
  const left = new Map<Tensor, { readonly of: Tensor; readonly parts: Operand; readonly each: number }>();
  const starts: number[] = []; // of each level, how many kernels run before it
  const scratchBytes = new Map<number, number>(); // of all kernels of a tensor
  for (const { members, serves: served } of turns) {
    const [x] = members;
    if (x.source.kind !== "op") continue;
    while (starts.length <= levels.get(served.id)!) starts.push(kernels.length);
    const { op } = x.source;
    if (op.exchange !== undefined) continue;
    if (x !== served) operands.delete(x.id); // whoever reads it from now on reads the new one
    scratchBytes.set(x.id, 0);
    const scratch = (shape: Shape, dtype: Operand["dtype"] = "f32") => {
      const operand = reserve(shape, dtype, "scratch");
      scratchBytes.set(x.id, scratchBytes.get(x.id)! + bytesOf(operand));
      return operand;
    };
    const isHalf = (tensor: Tensor) => operandOf(tensor).dtype === "f16";
    const { inputs } = x.source;
    const describe = () =>
      isFused(x)
        ? fusedWork(members, leavesOfAll(members, isInlined)!, isHalf)
        : workOf(x, inputs.map(isHalf));
    const choose = chooser(x, describe, choices, (choice) => chosen.set(choice.work, choice));
    const context = { inlined: isInlined, operandOf, scratch, traits, choose };
    const found = left.get(x);
    if (found !== undefined) {
      kernels.push(...sumsOfMoments(operandOf(found.of), found, operandOf(x), scratch));
    } else if (op.reduction === "columns") kernels.push(...columnSumKernels(x, context));
    else if (op.reduction === "rows") kernels.push(...rowSumKernels(x, context));
    else if (isElementwise(x)) {
      kernels.push(...elementwiseKernels(members, context, ({ id }) => place.get(id) ?? null));
    } else {
      const asked = isHalf(x) ? undefined : wanted.get(x);
      const moments = asked === undefined ? null : {
        rows: asked.of.shape[1],
        leave: (parts: Operand, each: number) => void left.set(asked.sums, { of: asked.of, parts, each }),
      };
      kernels.push(...opKernels(x, operandOf, scratch, traits, choose, moments));
    }
    for (; makes.length < kernels.length; makes.push(x)) serves.push(served);
  }

  const uses = new Map<number, { first: number; last: number }>();
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
  const stops = planStops(scheduled, levels, {
    startOf: (level) => starts[level] ?? kernels.length,
    firstUse: (x) => uses.get(operandOf(x).storage)?.first ?? kernels.length,
    operandOf,
  });
  stops.forEach(({ after, exchanges }) => {
    for (const { from, to, segment } of exchanges) {
      const [source, target] = [from, to].map(({ storage }) => uses.get(storage));
      if (source !== undefined) source.last = Math.max(source.last, after - 1);
      const written = stops[segment - 1].after;
      if (target !== undefined) target.first = written;
      else uses.set(to.storage, { first: written, last: written });
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
    kernels,
  );

  const exchanged = new Set(scheduled.flatMap((x) => isExchange(x) ? [x, ...readsOf(x)] : []));
  const index = new Map(bundles.flatMap((members, i) => members.map((x) => [x, i] as const)));
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const works = bundles.map((members, i): Work => {
    const reads = new Set(members.flatMap(readsOf));
    const made = members.filter(({ id }) => !place.has(id));
    const bytes = sum(made.map((x) => bytesOf(operandOf(x))));
    const isResult = members.some(({ id }) => kept.has(id));
    return {
      reads: [...new Set([...reads].flatMap((read) => index.get(read) ?? []))].filter((j) => j !== i),
      bytes,
      scratch: scratchBytes.get(members[0].id) ?? 0,
      cost: isExchange(members[0])
        ? 0
        : secondsOf(members[0], bytes + sum([...reads].map((x) => bytesOf(operandOf(x)))), traits),
      repeatable: !isResult && !exchanged.has(members[0]),
      isResult,
    };
  });
  const again = turns.flatMap(({ members: [x], serves }) => x === serves ? [] : works[index.get(x)!]);
  const recomputed = {
    tensors: again.length,
    bytes: sum(again.map(({ bytes }) => bytes)),
    work: sum(again.map(({ cost }) => cost)) / sum(works.map(({ cost }) => cost)),
  };
  return {
    lowered: {
      ...{ kernels, makes, serves, recomputed, stops, plan, operandOf, copies, inputs, constants },
      choices: [...chosen.values()],
    },
    works,
  };
};

/** What is made together, in its own turn or before the turn of another tensor, which needs it again. */
interface Turn {
  readonly members: readonly Tensor[];
  readonly serves: Tensor; // of a bundle the first one
}

const turnsOf = (
  bundles: readonly (readonly Tensor[])[],
  order: Iterable<number> = bundles.keys(),
): readonly Turn[] => {
  const made = new Set<number>();
  let again: (readonly Tensor[])[] = [];
  return [...order].flatMap((place): Turn[] => {
    if (made.has(place)) {
      again.push(bundles[place]);
      return [];
    }
    made.add(place);
    const turns = [...again, bundles[place]].map((members) => ({ members, serves: bundles[place][0] }));
    again = [];
    return turns;
  });
};

/** About how long it takes to make a tensor: by its operations, and by the bytes that it is and is made from. */
const secondsOf = ({ source, shape }: Tensor, bytes: number, { software }: AdapterTraits): number => {
  const flops = source.kind === "op" ? source.op.flops?.(source.inputs, shape) ?? 0 : 0;
  return software ? flops / 2e10 + bytes / 1e10 : flops / 1e13 + bytes / 5e11;
};

const isExchange = ({ source }: Tensor) => source.kind === "op" && source.op.exchange !== undefined;

/**
 * How many stops lie before each tensor at least: an exchange ends a level. What depends on a late exchange comes after
 * all else.
 */
const levelsOf = (live: readonly Tensor[]): ReadonlyMap<number, number> => {
  const levels = new Map<number, number>();
  const late = new Set<number>(); // their levels count from the last one on
  for (const x of live) {
    const { source } = x;
    const inputs = source.kind === "op" ? source.inputs : source.kind === "view" ? [source.of] : [];
    const exchange = source.kind === "op" ? source.op.exchange : undefined;
    const isLate = inputs.some(({ id }) => late.has(id));
    const above = inputs.filter(({ id }) => late.has(id) === isLate).map(({ id }) => levels.get(id)!);
    if (isLate || exchange?.late) late.add(x.id);
    const level = exchange?.late && !isLate ? 0 : Math.max(0, ...above) + (exchange === undefined ? 0 : 1);
    levels.set(x.id, level);
  }
  const last = 1 + Math.max(0, ...live.filter(({ id }) => !late.has(id)).map(({ id }) => levels.get(id)!));
  for (const id of late) levels.set(id, last + levels.get(id)!);
  return levels;
};

/**
 * Gathers exchanges into as few stops as possible: those that the next level waits for are made together once their own
 * level is done; late ones join the next such stop, and what they give is needed only where it is first read.
 */
const planStops = (
  scheduled: readonly Tensor[],
  levels: ReadonlyMap<number, number>,
  { startOf, firstUse, operandOf }: {
    readonly startOf: (level: number) => number;
    readonly firstUse: (x: Tensor) => number;
    readonly operandOf: (x: Tensor) => Operand;
  },
): readonly Stop[] => {
  const exchanges = scheduled.flatMap((x) => {
    if (x.source.kind !== "op" || x.source.op.exchange === undefined) return [];
    const [input] = x.source.inputs;
    return [{ x, input, level: levels.get(input.id)!, ...x.source.op.exchange }];
  });
  const urgent = [...new Set(exchanges.filter(({ late }) => !late).map(({ level }) => level))].sort((a, b) =>
    a - b
  );
  const stopLevel = ({ x, level, late }: (typeof exchanges)[number]) =>
    late
      ? urgent.find((other) => other >= level && other < levels.get(x.id)!) ?? levels.get(x.id)! - 1
      : level;
  const grouped = [...Map.groupBy(exchanges, stopLevel)].sort(([a], [b]) => a - b);
  const afters = grouped.map(([level]) => startOf(level + 1));
  return grouped.map(([, members], i): Stop => ({
    after: afters[i],
    exchanges: members.map(({ x, input, kind, late }) => ({
      kind,
      from: operandOf(input),
      to: operandOf(x),
      segment: late ? Math.max(i + 1, afters.filter((after) => after <= firstUse(x)).length) : i + 1,
    })),
  }));
};

/** What sums around the first row are made of: by what is stored, those sums and the groups of rows [G, R, C] that it is. */
const momentsWanted = (
  scheduled: readonly Tensor[],
): ReadonlyMap<Tensor, { readonly sums: Tensor; readonly of: Tensor }> =>
  new Map(scheduled.flatMap((x) => {
    if (x.source.kind !== "op" || x.source.op.reduction !== "columns") return [];
    const { aroundFirst } = x.source.attributes as ColumnSums;
    return aroundFirst === undefined ? [] : [[storageOf(aroundFirst), { sums: x, of: aroundFirst }]];
  }));

/**
 * The kernels of an op that is not fused; in slices along its first axis where a tensor is larger than one binding, if
 * the op can be done so.
 */
const opKernels = (
  x: Tensor,
  operandOf: (x: Tensor) => Operand,
  scratch: LoweringContext<never>["scratch"],
  adapter: AdapterTraits,
  choose: Choose,
  moments: MomentsWanted | null,
): readonly Kernel[] => {
  if (x.source.kind !== "op") return [];
  const { op, attributes } = x.source;
  const inputs = x.source.inputs.map(operandOf);
  const output = operandOf(x);
  const whole = (moments: MomentsWanted | null) =>
    op.kernels!({ inputs, output, attributes, scratch, adapter, moments, choose });
  if ([...inputs, output].every((operand) => bytesOf(operand) <= adapter.maxBinding)) return whole(moments);

  const slices = op.slices?.(x.source.inputs) ?? null;
  if (slices === null) return whole(null); // refused when it is bound
  const sliced = [...slices.along.map((i) => inputs[i]), ...(slices.output === "rows" ? [output] : [])];
  const axisOf = (operand: Operand) => operand.shape.findIndex((size) => size !== 1);
  const rowOf = (operand: Operand) => sizeOf(operand.shape.slice(axisOf(operand) + 1));
  const rows = sliced[0].shape[axisOf(sliced[0])];
  const unit = Math.max(...sliced.map((operand) => {
    const alignment = alignmentOf(operand);
    return alignment / greatestCommonDivisor(alignment, rowOf(operand));
  }));
  const most = Math.min(
    ...sliced.map((operand) => adapter.maxBinding / elementBytes(operand) / rowOf(operand)),
  );
  const each = Math.floor(most / unit) * unit;
  const size = sizeOf(output.shape);
  if (each === 0 || (slices.output === "sum" && size % 64 !== 0)) return whole(null); // partial sums are in f32

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
      moments: null,
      inputs: inputs.map((operand, i) => (slices.along.includes(i) ? slice(operand, part * each) : operand)),
      output: partial === null
        ? slice(output, part * each)
        : { ...partial, offset: part * size, shape: output.shape },
      attributes,
      scratch,
      adapter,
      choose,
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

/** What a lowered graph needs beyond its memory limit or these limits of an adapter, or null where it fits. */
export const overLimit = (
  { label, memoryLimit = Infinity, memoryTaken = 0 }: Graph,
  { kernels, plan, inputs, operandOf }: Lowered,
  limits: AdapterReport["limits"],
): PlanError | null => {
  const refuse = (tensor: string | null, needs: number, what: string, limit: number) =>
    new PlanError({ label, tensor, needs, what, limit });
  const needed = plan.total + memoryTaken;
  if (needed > memoryLimit) return refuse(null, needed, "memory limit", memoryLimit);
  const buffers = [
    ...inputs.map((x) => ({ name: (x.source as { name: string }).name, bytes: bytesOf(operandOf(x)) })),
    ...plan.slots.map(({ name, bytes }) => ({ name, bytes })),
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
