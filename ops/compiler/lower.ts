/**
 * Lowering, the part of compiling that needs no device: drops what nothing uses, decides what is fused into what, turns
 * ops into kernels in an order of work, and plans memory.
 */
import { bytesOf, type Kernel, type Operand } from "../graph/kernel.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";
import { storageOf, type Tensor } from "../graph/tensor.ts";
import { shiftedSumsOfPartials } from "../kernels/batch_statistics.ts";
import { secondsOf } from "./cost_model.ts";
import { fusedInputs, fusedInputsOfAll } from "./fused_inputs.ts";
import { elementwiseKernels, fusedWork } from "./fused_kernels.ts";
import { columnSumKernels, rowSumKernels } from "./fused_reductions.ts";
import { chooseInlined } from "./fusion.ts";
import { type Graph, isElementwise, isExchange, isFused, reachable } from "./graph.ts";
import { fusedHorizontally } from "./horizontal_fusion.ts";
import { type Choice, type Choices, chooser, GUESSED, workOf } from "./kernel_selection.ts";
import { type Lifetime, type MemoryPlan, planMemory } from "./memory_plan.ts";
import { storedInHalf } from "./mixed_precision.ts";
import { opKernels } from "./op_kernels.ts";
import { type ScheduledOp, scheduleWithin } from "./rematerialize.ts";
import { statisticsEpilogues } from "./statistics_epilogue.ts";
import { planSyncPoints, syncDepths, type SyncPoint } from "./sync_points.ts";

/** A graph as kernels in order, and the memory that they use. */
export interface Lowered {
  readonly kernels: readonly Kernel[];
  /** The tensor that each kernel works for. */
  readonly produces: readonly Tensor[];
  /** The tensor in whose turn each kernel runs: the one it makes, or one that reads what it makes once more. */
  readonly scheduledFor: readonly Tensor[];
  readonly recomputed: Recomputed;
  /** Where the program waits for other ranks; none in a program for one process. */
  readonly syncPoints: readonly SyncPoint[];
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

  const levels = syncDepths(live);
  const scheduled = live.filter((x) => x.source.kind === "op" && !inlined.has(x.id))
    .sort((a, b) => levels.get(a.id)! - levels.get(b.id)! || a.id - b.id);
  const isInlined = (x: Tensor) => inlined.has(x.id);
  const reads = new Map(scheduled.map((x) => [
    x,
    isFused(x)
      ? fusedInputs(x, isInlined)!.map((leaf) => leaf.tensor)
      : x.source.kind === "op"
      ? x.source.inputs.map(storageOf)
      : [],
  ]));
  const readsOf = (x: Tensor): readonly Tensor[] => reads.get(x)!;
  const next = new Set([...updates.values()].map(storageOf));
  const most = traits.maxStorageBuffers;
  const bundles = fusedHorizontally(scheduled, { next, levels, readsOf, inlined: isInlined, most });
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
): { readonly lowered: Lowered; readonly works: readonly ScheduledOp[] } => {
  const { graph, updates, results, live, kept, isInlined, levels, scheduled, readsOf, bundles, half } =
    analysis;
  const turns = scheduleSteps(bundles, order);
  const turn = new Map(turns.flatMap(({ members }, i) => members.map((x) => [x.id, i] as const)));
  const leavesOfBundle = (x: Tensor) => fusedInputsOfAll(turns[turn.get(x.id)!].members, isInlined)!;

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
  const narrowing = traits.cpu ? "integers" : "native";
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
  const produces: Tensor[] = [];
  const scheduledFor: Tensor[] = [];
  const chosen = new Map<string, Choice>();
  const wanted = statisticsEpilogues(scheduled);
  const left = new Map<
    Tensor,
    { readonly of: Tensor; readonly partials: Operand; readonly rowsPerPartial: number }
  >();
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
        ? fusedWork(members, fusedInputsOfAll(members, isInlined)!, isHalf)
        : workOf(x, inputs.map(isHalf));
    const choose = chooser(x, describe, choices, (choice) => chosen.set(choice.work, choice));
    const context = { inlined: isInlined, operandOf, scratch, traits, choose };
    const found = left.get(x);
    if (found !== undefined) {
      kernels.push(...shiftedSumsOfPartials(operandOf(found.of), found, operandOf(x), scratch));
    } else if (op.reduction === "columns") kernels.push(...columnSumKernels(x, context));
    else if (op.reduction === "rows") kernels.push(...rowSumKernels(x, context));
    else if (isElementwise(x)) {
      kernels.push(...elementwiseKernels(members, context, ({ id }) => place.get(id) ?? null));
    } else {
      const asked = isHalf(x) ? undefined : wanted.get(x);
      const moments = asked === undefined ? null : {
        rows: asked.of.shape[1],
        emit: (partials: Operand, rowsPerPartial: number) =>
          void left.set(asked.sums, { of: asked.of, partials, rowsPerPartial }),
      };
      kernels.push(...opKernels(x, operandOf, scratch, traits, choose, moments));
    }
    for (; produces.length < kernels.length; produces.push(x)) scheduledFor.push(served);
  }

  const uses = new Map<number, { first: number; last: number }>();
  const resident = new Map<number, Lifetime["group"]>();
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
  const syncPoints = planSyncPoints(scheduled, levels, {
    startOf: (level) => starts[level] ?? kernels.length,
    firstUse: (x) => uses.get(operandOf(x).storage)?.first ?? kernels.length,
    operandOf,
  });
  syncPoints.forEach(({ after, exchanges }) => {
    for (const { from, to, segment } of exchanges) {
      const [source, target] = [from, to].map(({ storage }) => uses.get(storage));
      if (source !== undefined) source.last = Math.max(source.last, after - 1);
      const written = syncPoints[segment - 1].after;
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
  const works = bundles.map((members, i): ScheduledOp => {
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
      ...{
        kernels,
        produces,
        scheduledFor,
        recomputed,
        syncPoints,
        plan,
        operandOf,
        copies,
        inputs,
        constants,
      },
      choices: [...chosen.values()],
    },
    works,
  };
};

/** What is made together, in its own turn or before the turn of another tensor, which needs it again. */
interface ScheduleStep {
  readonly members: readonly Tensor[];
  readonly serves: Tensor; // of a bundle the first one
}

const scheduleSteps = (
  bundles: readonly (readonly Tensor[])[],
  order: Iterable<number> = bundles.keys(),
): readonly ScheduleStep[] => {
  const made = new Set<number>();
  let again: (readonly Tensor[])[] = [];
  return [...order].flatMap((place): ScheduleStep[] => {
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
