/**
 * Programs: a graph of tensors, compiled for a device. It is lowered to kernels (compiler/lower.ts), which are bound to
 * buffers; to run it is to upload a batch, submit the kernels, and read the outputs back.
 */
import { Effect, type Scope } from "effect";
import type { Graph } from "../compiler/graph.ts";
import { type Choice, TunedChoices } from "../compiler/kernel_selection.ts";
import { overLimit, type PlanError } from "../compiler/limits.ts";
import { lower, type Lowered, type Recomputed } from "../compiler/lower.ts";
import type { MemoryPlan } from "../compiler/memory_plan.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type Arena, makeArena } from "./arena.ts";
import { type DeviceState, memoryOf, type ProgramMemory, type Upload } from "./buffers.ts";
import type { CollectiveError } from "./collective.ts";
import { dispatchesOf, encodePasses } from "./dispatches.ts";
import { Gpu, type GpuError, lacksHalf, mapped } from "./gpu.ts";
import { type OutputRing, outputRing, type Outputs } from "./outputs.ts";
import { profilerOf, type ProfileRun, type StartRun } from "./profiler.ts";
import { type Bound, type SyncSegments, syncSegments } from "./sync_segments.ts";
import { clockOf, deviceTime, secondsOf } from "./timestamps.ts";

export type { DeviceState, Upload } from "./buffers.ts";
export type { ProfiledRun, TimedKernel } from "./profiler.ts";

/** A graph compiled for a device. */
export interface Program {
  /** Where its tensors are stored. */
  readonly plan: MemoryPlan;
  /** What it computes twice to stay within the memory limit. */
  readonly recomputed: Recomputed;
  /** Kernels of a run. */
  readonly dispatches: number;
  /** Work that several variants of kernels can do, and the variant that does it. */
  readonly choices: readonly Choice[];
  /** Synchronisation points of a run, where it waits for other ranks; 0 in a program for one process. */
  readonly syncPoints: number;
  /** Tensors that a run reduces or gathers at them. */
  readonly exchanges: number;
  /** Bytes that this rank contributes to them in a run. */
  readonly exchangedBytes: number;
  /** Milliseconds that all runs so far have spent at synchronisation points. */
  readonly spent: {
    /** Waiting for the device, and reading back. */
    readonly device: number;
    /** Waiting for other ranks, beyond what the device did meanwhile, and uploading. */
    readonly exchange: number;
  };
  /**
   * Submits a run asynchronously. The outer effect uploads and submits; with synchronisation points it also runs the
   * program up to the last of them. The inner effect maps the readback buffer and gives the outputs by name: mapping
   * blocks the JavaScript thread, so run it one step later. At most `IN_FLIGHT` runs may be unread. `values` has to
   * name every batch input. Fails with GpuError, or CollectiveError where ranks cannot exchange.
   */
  readonly run: (
    values: Readonly<Record<string, Upload>>,
  ) => Effect.Effect<Effect.Effect<Outputs, GpuError>, GpuError | CollectiveError>;
  /**
   * Seconds that the device spent on each stage of the graph in the run that was read last; null where the graph names
   * none, or the adapter lacks timestamp-query.
   */
  readonly stageSeconds: () => Readonly<Record<string, number>> | null;
  /**
   * Prepares runs like those of `run` that also time each kernel, until the scope ends. They take a little longer,
   * since every kernel gets a pass of its own. Fails with GpuError.
   */
  readonly profiler: Effect.Effect<ProfileRun, GpuError, Scope.Scope>;
}

/**
 * Compiles `graph`; its buffers live as long as the scope. Inputs named in `state` are bound to the buffers there,
 * which several programs may share; all others are uploaded before each run. Transient memory and batch inputs come
 * from `arena`, which several programs may share too; if not given, the program has one of its own. `traits` replace
 * the adapter's: tests try out what other adapters would get. Fails with PlanError where the graph needs more than the
 * adapter has, or GpuError.
 */
export const compile: (
  graph: Graph,
  state?: DeviceState,
  traits?: AdapterTraits,
  arena?: Arena,
) => Effect.Effect<Program, GpuError | PlanError, Gpu | Scope.Scope> = Effect.fn("compile")(function* (
  graph,
  state = new Map(),
  traits,
  arena,
) {
  const gpu = yield* Gpu;
  const lowered = yield* loweredFor(graph, state, traits ?? gpu.traits);
  const { kernels, syncPoints } = lowered;
  const memory = yield* memoryOf(lowered, state, arena ?? (yield* makeArena));
  yield* memory.exclusively(memory.regionOf); // reserves memory before it compiles pipelines
  const bind = yield* dispatchesOf(kernels);
  let current: Bound | null = null;
  const bound = Effect.map(memory.regionOf, (regionOf) => {
    if (current?.regionOf !== regionOf) current = { regionOf, dispatches: bind(regionOf) };
    return current;
  });
  yield* memory.exclusively(bound);
  yield* gpu.check;

  const segments = yield* syncSegments(lowered);
  const clock = yield* clockOf(gpu, stageStarts(graph, lowered), kernels.length);
  const ring = yield* outputRing(graph, lowered, clock);
  const time = yield* Effect.cached(deviceTime(gpu));
  if (clock !== null) yield* time; // now, while the device is idle

  const submit = submitting(gpu, lowered, memory, bound, segments);
  let stageSeconds: Readonly<Record<string, number>> | null = null;
  const start: StartRun = (values, ring, record) =>
    Effect.map(
      submit(values, ring, record),
      Effect.tap(Effect.fnUntraced(function* ({ stamps }) {
        const { clock } = ring;
        stageSeconds = clock && stamps && secondsOf(clock.spans, stamps, yield* time);
      })),
    );
  return {
    plan: lowered.plan,
    recomputed: lowered.recomputed,
    choices: lowered.choices,
    dispatches: kernels.length,
    syncPoints: syncPoints.length,
    exchanges: syncPoints.reduce((total, { exchanges }) => total + exchanges.length, 0),
    exchangedBytes: segments.bytes,
    spent: segments.spent,
    run: (values) =>
      Effect.map(start(values, ring, () => {}), (reading) => Effect.map(reading, ({ outputs }) => outputs)),
    stageSeconds: () => stageSeconds,
    profiler: profilerOf(graph, lowered, start, time).pipe(Effect.provideService(Gpu, gpu)),
  };
});

/** Lowers a graph with the kernels that tuning has found, unless the adapter cannot run it. */
const loweredFor = Effect.fnUntraced(function* (graph: Graph, state: DeviceState, traits: AdapterTraits) {
  const { report } = yield* Gpu;
  if (graph.precision === "f16" && !traits.shaderF16) {
    return yield* lacksHalf(graph.label, report.description);
  }
  const choices = (yield* TunedChoices)(report);
  const lowered = lower(graph, traits, (name) => state.has(name), choices);
  const refusal = overLimit(graph, lowered, report.limits);
  return refusal === null ? lowered : yield* refusal;
});

/** Submits runs of a program: uploads its inputs, runs its segments, and copies its outputs for the host to read. */
const submitting = (
  { device, check }: Gpu,
  lowered: Lowered,
  { inputs, exclusively }: ProgramMemory,
  bound: Effect.Effect<Bound, GpuError>,
  segments: SyncSegments,
): StartRun =>
  Effect.fnUntraced(function* (values, ring, record) {
    const missing = inputs.filter(({ name }) => values[name] === undefined);
    if (missing.length > 0) {
      const names = missing.map(({ name }) => name).join(", ");
      return yield* Effect.die(new Error(`no value given for the inputs ${names}`));
    }
    const staging = ring.next();
    yield* exclusively(Effect.gen(function* () {
      const program = yield* bound;
      const uploading = performance.now();
      for (const { name, operand } of inputs) {
        const { buffer } = program.regionOf(operand);
        device.queue.writeBuffer(buffer, 0, values[name] as Float32Array<ArrayBuffer>);
      }
      record("upload", uploading);
      const first = yield* segments.run(program, ring.clock, record);
      const encoding = performance.now();
      submitLast(device, lowered, program, first, ring, staging);
      record("encode and submit", encoding);
    }));
    return Effect.gen(function* () {
      const waiting = performance.now();
      yield* mapped(staging);
      yield* check;
      const data = staging.getMappedRange().slice(0);
      staging.unmap();
      record("wait for the device", waiting);
      return ring.decode(data);
    });
  });

/**
 * Submits the last segment of a run, which begins at kernel `first`: it ends with the copies of new state and outputs.
 */
const submitLast = (
  device: GPUDevice,
  { copies, operandOf }: Lowered,
  { dispatches, regionOf }: Bound,
  first: number,
  { clock, copy }: OutputRing,
  staging: GPUBuffer,
) => {
  const encoder = device.createCommandEncoder();
  encodePasses(encoder, dispatches, first, dispatches.length, clock);
  for (const { from, to } of copies) { // state that the kernels have not updated in place
    const [source, target] = [from, to].map((x) => regionOf(operandOf(x)));
    encoder.copyBufferToBuffer(source.buffer, source.offset, target.buffer, target.offset, target.size);
  }
  copy(encoder, staging, regionOf);
  device.queue.submit([encoder.finish()]);
};

/** The first kernel of each stage of a graph, and of each segment; none where the graph names no stages. */
const stageStarts = ({ stageOf }: Graph, { scheduledFor, syncPoints }: Lowered) => {
  if (stageOf === undefined) return [];
  const stages = scheduledFor.map(stageOf);
  const segments = new Set(syncPoints.map(({ after }) => after)); // a sync point ends a pass, too
  return [...stages.keys()].filter((i) => stages[i] !== stages[i - 1] || segments.has(i))
    .map((first) => ({ first, stage: stages[first] }));
};

/**
 * The values of a tensor that depends on constants only, in row-major order: for tests and exploration. Fails as
 * `compile` and `Program.run` do.
 */
export const evaluate = (
  x: Tensor,
): Effect.Effect<Float32Array, GpuError | PlanError | CollectiveError, Gpu> =>
  Effect.scoped(Effect.gen(function* () {
    const program = yield* compile({ label: "evaluate", outputs: { x } });
    return (yield* yield* program.run({})).x;
  }));
