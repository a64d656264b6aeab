/**
 * Lowering: from a graph to kernels and a memory plan, without a device. `fuse` and `lowerSchedule` are the passes in
 * order; each is a function over plain data in a file of its own.
 */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { inputName, type OpTensor, storageOf, type Tensor } from "../graph/tensor.ts";
import { assignBuffers, type BufferAssignment } from "./buffer_assignment.ts";
import { scheduledOps } from "./cost_model.ts";
import { emitKernels } from "./emit_kernels.ts";
import { chooseInlined } from "./fusion.ts";
import { type Graph, reachable, resultsOf } from "./graph.ts";
import { fusedHorizontally } from "./horizontal_fusion.ts";
import { updatesInPlace } from "./in_place_updates.ts";
import { type Choice, type Choices, GUESSED } from "./kernel_selection.ts";
import { kernelUses, lifetimesOf, withExchanges } from "./lifetimes.ts";
import { type Lifetime, type MemoryPlan, planMemory } from "./memory_plan.ts";
import { storedInHalf } from "./mixed_precision.ts";
import { scheduleWithin } from "./rematerialize.ts";
import { isRecomputed, scheduleOrder, type ScheduleStep, scheduleSteps, storedReads } from "./schedule.ts";
import type { ScheduledOp } from "./schedule_simulation.ts";
import { statisticsEpilogues } from "./statistics_epilogue.ts";
import { planSyncPoints, syncDepths, type SyncPoint } from "./sync_points.ts";

/** A graph as kernels in order, and the memory that they use. */
export interface Lowered {
  /** The dispatches of a run, in order. */
  readonly kernels: readonly Kernel[];
  /** The tensor that each kernel works for. */
  readonly produces: readonly OpTensor[];
  /** For each kernel the tensor that it produces or, where it recomputes that, the tensor that needs it again. */
  readonly scheduledFor: readonly OpTensor[];
  /** The variant that each kernel belongs to; null where there is only one. */
  readonly variants: readonly (string | null)[];
  /** What is recomputed to stay within the memory limit. */
  readonly recomputed: Recomputed;
  /** Where the program waits for other ranks; none in a program for one process. */
  readonly syncPoints: readonly SyncPoint[];
  /** Where the tensors are stored. */
  readonly plan: MemoryPlan;
  /** From which kernel to which each storage is in use; their numbers are their indices. */
  readonly lifetimes: readonly Lifetime[];
  /** Where the values of a tensor are stored at the end of a run. */
  readonly operandOf: (x: Tensor) => Operand;
  /** Next values of the state that overwrite the current value, an input. */
  readonly inPlace: ReadonlyMap<Tensor, Tensor>;
  /** State whose next value is stored elsewhere and has to be copied after a run. */
  readonly copies: readonly { readonly from: Tensor; readonly to: Tensor }[];
  /** The inputs that the kernels read: state, and batch inputs. */
  readonly inputs: readonly Tensor[];
  /** The constants that have memory. */
  readonly constants: readonly Tensor[];
  /** All kinds of work that have several variants, each once. */
  readonly choices: readonly Choice[];
  /** The graph after fusion. */
  readonly fused: FusedGraph;
}

/** What is recomputed instead of being kept, for lack of memory. */
export interface Recomputed {
  /** How many tensors. */
  readonly tensors: number;
  /** Their bytes. */
  readonly bytes: number;
  /** The time that it takes, as a share of the time that all else takes; an estimate. */
  readonly work: number;
}

/** A graph after the passes that do not depend on its schedule. */
export interface FusedGraph {
  /** The graph itself. */
  readonly graph: Graph;
  /** The outputs and the next values of the state. */
  readonly results: readonly Tensor[];
  /** All tensors that the results depend on, each after its inputs. */
  readonly live: readonly Tensor[];
  /** The tensors that hold the results. */
  readonly kept: ReadonlySet<Tensor>;
  /** Tensors that the kernels of their readers compute; they are not stored. */
  readonly isInlined: (x: Tensor) => boolean;
  /** For each tensor the fewest sync points before it. */
  readonly depths: ReadonlyMap<Tensor, number>;
  /** The tensors that have kernels of their own, in order. */
  readonly scheduled: readonly OpTensor[];
  /** The tensors in memory that the kernels of a scheduled tensor read. */
  readonly readsOf: (x: Tensor) => readonly Tensor[];
  /** The schedule in groups of tensors that one kernel computes. */
  readonly groups: readonly (readonly OpTensor[])[];
  /** Tensors that are stored in f16. */
  readonly half: ReadonlySet<Tensor>;
}

/** What a graph is lowered for. */
interface Target {
  readonly traits: AdapterTraits;
  /** Whether the input of this name stays on the device between runs. */
  readonly isState: (name: string) => boolean;
  readonly choices: Choices;
}

/**
 * Lowers `graph` for an adapter; inputs for which `isState` holds stay on the device between runs. Where no plan is
 * found within the graph's memory limit, gives the one with the fewest bytes. Throws where two inputs share a name.
 */
export const lower = (
  graph: Graph,
  traits: AdapterTraits,
  isState: (name: string) => boolean,
  choices: Choices = GUESSED,
): Lowered => {
  const fused = fuse(graph, traits);
  const target = { traits, isState, choices };
  const { lowered, ops } = lowerSchedule(fused, scheduleSteps(fused.groups), target);
  const limit = (graph.memoryLimit ?? Infinity) - (graph.memoryTaken ?? 0);
  return lowered.plan.total <= limit ? lowered : rematerialized(lowered, ops, limit, target);
};

/** The passes that do not depend on the schedule. */
export const fuse = (graph: Graph, traits: AdapterTraits): FusedGraph => {
  const results = resultsOf(graph);
  const live = reachable(results);
  const kept = new Set(results.map(storageOf));
  const inlined = chooseInlined(live, kept, traits);
  const isInlined = (x: Tensor) => inlined.has(x);
  const depths = syncDepths(live);
  const scheduled = scheduleOrder(live, isInlined, depths);
  const reads = storedReads(scheduled, isInlined);
  const readsOf = (x: Tensor) => reads.get(x)!;
  const next = new Set([...graph.updates?.values() ?? []].map(storageOf));
  const { maxStorageBuffers } = traits;
  const groups = fusedHorizontally(scheduled, { next, depths, readsOf, isInlined, maxStorageBuffers });
  const half = graph.precision === "f16" ? storedInHalf(scheduled, readsOf, kept) : new Set<Tensor>();
  return { graph, results, live, kept, isInlined, depths, scheduled, readsOf, groups, half };
};

/** The passes for one schedule; `ops` describe its groups to rematerialisation. */
const lowerSchedule = (
  fused: FusedGraph,
  steps: readonly ScheduleStep[],
  { traits, isState, choices }: Target,
): { readonly lowered: Lowered; readonly ops: readonly ScheduledOp[] } => {
  const { graph, results, scheduled, depths, half } = fused;
  const { inPlace, copies } = updatesInPlace(graph.updates ?? new Map(), steps, fused);
  const buffers = assignBuffers({ inPlace, half, narrowing: traits.cpu ? "integers" : "native" });
  const { operandOf } = buffers;
  const { inputs, constants, resident } = assignResident(fused, buffers, isState);
  const statistics = statisticsEpilogues(scheduled, half);
  const emission = emitKernels(steps, { ...fused, inPlace, statistics, buffers, traits, choices });
  const { emitted, depthStarts, scratchBytes } = emission;
  const kernels = emitted.map(({ kernel }) => kernel);
  const uses = kernelUses(kernels);
  const syncPoints = planSyncPoints(scheduled, depths, {
    kernelsBefore: (depth) => depthStarts[depth] ?? kernels.length,
    firstUse: (x) => uses.get(operandOf(x).storage)?.first ?? kernels.length,
    operandOf,
  });
  const lifetimes = lifetimesOf(buffers.storages, withExchanges(uses, syncPoints), {
    resident,
    results: new Set(results.map((x) => operandOf(x).storage)),
    kernels: kernels.length,
  });
  const plan = planMemory(lifetimes, kernels);
  const ops = scheduledOps(fused.groups, { ...fused, inPlace, operandOf, scratchBytes, traits });
  const lowered = {
    ...{ kernels, syncPoints, plan, lifetimes, operandOf, inPlace, copies, inputs, constants, fused },
    produces: emitted.map(({ produces }) => produces),
    scheduledFor: emitted.map(({ scheduledFor }) => scheduledFor),
    variants: emitted.map(({ variant }) => variant),
    choices: emission.choices,
    recomputed: recomputedIn(steps, fused.groups, ops),
  };
  return { lowered, ops };
};

/**
 * Assigns memory to inputs and constants, which exist before the first kernel. Throws where two inputs share a name.
 */
const assignResident = (
  { graph, live, scheduled, readsOf, results }: FusedGraph,
  { operandOf }: BufferAssignment,
  isState: (name: string) => boolean,
) => {
  const inputs = live.filter(({ source }) => source.kind === "input");
  const names = new Set(inputs.map(inputName));
  if (names.size < inputs.length) throw new Error(`two inputs of ${graph.label} share a name: ${[...names]}`);
  const stored = new Set([...scheduled.flatMap(readsOf), ...results.map(storageOf)]);
  const constants = live.filter((x) => x.source.kind === "constant" && stored.has(x));
  const resident = new Map<number, Lifetime["group"]>();
  for (const x of inputs) resident.set(operandOf(x).storage, isState(inputName(x)) ? "state" : "batch");
  for (const x of constants) resident.set(operandOf(x).storage, "constants");
  return { inputs, constants, resident };
};

/** What a schedule recomputes, and its share of the cost of all ops. */
const recomputedIn = (
  steps: readonly ScheduleStep[],
  groups: readonly (readonly OpTensor[])[],
  ops: readonly ScheduledOp[],
): Recomputed => {
  const opOf = new Map(groups.map(([first], i) => [first, ops[i]]));
  const recomputed = steps.filter(isRecomputed).map(({ members: [x] }) => opOf.get(x)!);
  const sum = (of: readonly ScheduledOp[], value: (op: ScheduledOp) => number) =>
    of.reduce((total, op) => total + value(op), 0);
  const cost = (op: ScheduledOp) => op.cost;
  return {
    tensors: recomputed.length,
    bytes: sum(recomputed, ({ bytes }) => bytes),
    work: recomputed.length === 0 ? 0 : sum(recomputed, cost) / sum(ops, cost),
  };
};

/** Schedules that are tried for a memory limit, each with a smaller budget than the one before. */
const MOST_SCHEDULES = 8;

/**
 * Recomputes as much as it takes to stay within `limit` bytes, or as close above it as was found. Rematerialisation
 * counts the bytes in use; the gaps that remain in shared buffers are known only from a plan, so the budget is lowered
 * by them.
 */
const rematerialized = (
  usual: Lowered,
  ops: readonly ScheduledOp[],
  limit: number,
  target: Target,
): Lowered => {
  const { fused, plan: { groups, needed, total } } = usual;
  let best = usual;
  // The limit, less what always exists and the gaps.
  let budget = limit - groups.state - groups.batch - groups.constants - (total - needed);
  for (let tries = 0; tries < MOST_SCHEDULES && best.plan.total > limit; tries++) {
    const { order, peak } = scheduleWithin(ops, budget);
    const { lowered } = lowerSchedule(fused, scheduleSteps(fused.groups, order), target);
    if (lowered.plan.total < best.plan.total) best = lowered;
    if (peak > budget) break;
    budget -= lowered.plan.total - limit + tries * 0.002 * limit; // another schedule may have larger gaps
  }
  return best;
};
