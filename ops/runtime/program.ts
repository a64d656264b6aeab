/**
 * Compiles a graph of tensors into a program for this device: lowers it (lower.ts), creates buffers, pipelines and bind
 * groups. Running the program is then only: upload, replay, read back.
 */
import { Effect, Fiber, type Scope } from "effect";
import type { Graph } from "../compiler/graph.ts";
import { type Choice, TunedChoices } from "../compiler/kernel_selection.ts";
import { overLimit, type PlanError } from "../compiler/limits.ts";
import { lower, type Lowered, type Recomputed } from "../compiler/lower.ts";
import type { MemoryPlan } from "../compiler/memory_plan.ts";
import type { SyncPoint } from "../compiler/sync_points.ts";
import { bytesOf, elementBytes, type Kernel, type Operand } from "../graph/kernel.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { constantData, inputName, type Tensor } from "../graph/tensor.ts";
import { Collective, type CollectiveError } from "./collective.ts";
import { dispatchesOf, encodeDispatches } from "./dispatches.ts";
import { Gpu, type GpuError, lacksHalf, mapped, STORAGE } from "./gpu.ts";
import { type Clock, clockOf, deviceTime, intervals, secondsOf } from "./timestamps.ts";

/** Tensors that live on the device between runs, by the name of their input. */
export type DeviceState = ReadonlyMap<string, GPUBuffer>;

export type Upload = Float32Array | Uint32Array;

export interface Program {
  readonly plan: MemoryPlan;
  readonly recomputed: Recomputed;
  readonly dispatches: number;
  /** What could be done in several ways, and how it is done. */
  readonly choices: readonly Choice[];
  /** How often a run waits for other ranks, and for how many tensors in all; 0 in a program for one process. */
  readonly syncPoints: number;
  readonly exchanges: number;
  /** What a run gives to the others. */
  readonly exchangedBytes: number;
  /** Milliseconds that all runs so far have spent at their stops. */
  readonly spent: {
    /** Waiting for the device and bringing data over. */
    readonly device: number;
    /** Waiting for the other ranks, beyond what the device did meanwhile. */
    readonly exchange: number;
  };
  /**
   * Submits one run. The inner effect waits for its outputs: run it late, for waiting blocks the thread. At most
   * `IN_FLIGHT` runs may be unread. A program with stops has passed all of them when the outer effect is done.
   */
  readonly run: (
    uploads: Readonly<Record<string, Upload>>,
  ) => Effect.Effect<
    Effect.Effect<Readonly<Record<string, Float32Array>>, GpuError>,
    GpuError | CollectiveError
  >;
  /**
   * Seconds that the device spent on each stage of the graph in the run that was read last; null where the graph names
   * none, or the adapter lacks timestamp-query.
   */
  readonly stageSeconds: () => Readonly<Record<string, number>> | null;
  /**
   * Prepares runs like those of `run` that also say where their time goes, until the scope ends. Every kernel then has a
   * pass of its own, for only passes have timestamps, so that such a run takes a little longer.
   */
  readonly profiler: Effect.Effect<
    (
      uploads: Readonly<Record<string, Upload>>,
    ) => Effect.Effect<Effect.Effect<ProfiledRun, GpuError>, GpuError | CollectiveError>,
    GpuError,
    Scope.Scope
  >;
}

/** A run and where its time went. Moments are milliseconds, as `performance.now()` gives them. */
export interface ProfiledRun {
  readonly outputs: Readonly<Record<string, Float32Array>>;
  /** In the order of their dispatch, none beginning before the one before has ended; null without timestamp-query. */
  readonly kernels: readonly TimedKernel[] | null;
  /** What this thread did, or waited for. */
  readonly host: readonly TimedWork[];
}

export interface TimedWork {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
}

export interface TimedKernel extends TimedWork {
  readonly kernel: Kernel;
  /** The tensor that it works for. */
  readonly makes: Tensor;
  readonly stage: string; // "" where the graph names none
}

/** Runs that may be submitted before the outputs of the first are read. */
export const IN_FLIGHT = 2;

/**
 * Compiles `graph`; its buffers live as long as the scope. Inputs named in `state` are bound to the buffers there.
 * `traits` stand in for the adapter's own: tests try out what other adapters would get.
 */
export const compile = Effect.fn("compile")(function* (
  graph: Graph,
  state: DeviceState = new Map(),
  traits?: AdapterTraits,
) {
  const gpu = yield* Gpu;
  const { device, report } = gpu;
  const adapter = traits ?? gpu.traits;
  if (graph.precision === "f16" && !adapter.shaderF16) {
    return yield* lacksHalf(graph.label, report.description);
  }
  const choices = (yield* TunedChoices)(report);
  const lowered = lower(graph, adapter, (name) => state.has(name), choices);
  const { kernels, syncPoints, plan, operandOf, copies } = lowered;
  const collective = yield* Collective;
  const refusal = overLimit(graph, lowered, report.limits);
  if (refusal !== null) return yield* refusal;

  // Memory: state is given; batch inputs and constants have their own buffers; the rest shares the plan's slots.
  const buffers = new Map<number, { readonly buffer: GPUBuffer; readonly offset: number }>(); // in bytes
  const uploads = new Map<string, GPUBuffer>();
  for (const x of lowered.inputs) {
    const name = inputName(x);
    const operand = operandOf(x);
    const buffer = state.get(name) ?? (yield* gpu.buffer(name, bytesOf(operand), STORAGE));
    buffers.set(operand.storage, { buffer, offset: 0 });
    if (!state.has(name)) uploads.set(name, buffer);
  }
  for (const x of lowered.constants) {
    const operand = operandOf(x);
    const buffer = yield* gpu.buffer("constant", bytesOf(operand), STORAGE);
    device.queue.writeBuffer(buffer, 0, constantData(x) as Float32Array<ArrayBuffer>);
    buffers.set(operand.storage, { buffer, offset: 0 });
  }
  for (const slot of plan.slots) {
    const buffer = yield* gpu.buffer(slot.name, slot.bytes, STORAGE | GPUBufferUsage.INDIRECT);
    for (const { storage, offset } of slot.allocations) buffers.set(storage, { buffer, offset });
  }
  const regionOf = (operand: Operand) => {
    const { buffer, offset } = buffers.get(operand.storage)!;
    return { buffer, offset: offset + operand.offset * elementBytes(operand), size: bytesOf(operand) };
  };

  const commands = yield* dispatchesOf(kernels, regionOf);
  yield* gpu.check;

  // Outputs of the runs in flight, each in a buffer of its own.
  const outputs = Object.entries(graph.outputs).map(([name, x]) => ({ name, x, bytes: sizeOf(x.shape) * 4 }));
  /** What takes up the outputs of runs that are timed by `clock`. */
  const recorder = Effect.fnUntraced(function* (clock: Clock | null) {
    const bytes = outputs.reduce((total, { bytes }) => total + bytes, clock?.bytes ?? 0);
    const ring: GPUBuffer[] = [];
    for (let i = 0; i <= IN_FLIGHT; i++) {
      ring.push(yield* gpu.buffer("outputs", bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST));
    }
    let runs = 0;
    return { clock, nextStaging: () => ring[runs++ % ring.length] };
  });
  const usual = yield* recorder(yield* clockOf(gpu, stageStarts(graph, lowered), kernels.length));
  const time = yield* Effect.cached(deviceTime(gpu));
  if (usual.clock !== null) yield* time; // now, while the device is idle
  let stageSeconds: Readonly<Record<string, number>> | null = null;

  const fill = (values: Readonly<Record<string, Upload>>) => {
    for (const [name, buffer] of uploads) {
      device.queue.writeBuffer(buffer, 0, values[name] as Float32Array<ArrayBuffer>);
    }
  };
  /** Copies the next state into its place where the kernels have not written it there. */
  const moveOn = (encoder: GPUCommandEncoder) => {
    for (const { from, to } of copies) {
      const [source, target] = [from, to].map((x) => regionOf(operandOf(x)));
      encoder.copyBufferToBuffer(source.buffer, source.offset, target.buffer, target.offset, target.size);
    }
  };

  /** Commands from `begin` to `end`: in one pass, or in a pass for each of the spans that are timed. */
  const encode = (encoder: GPUCommandEncoder, begin: number, end: number, clock: Clock | null) => {
    const whole = [{ first: begin, end, timestampWrites: undefined }];
    for (const span of clock?.spans.filter(({ first }) => begin <= first && first < end) ?? whole) {
      const pass = encoder.beginComputePass({ timestampWrites: span.timestampWrites });
      encodeDispatches(pass, commands.slice(span.first, span.end));
      pass.end();
    }
  };

  const submitLast = (begin: number, staging: GPUBuffer, clock: Clock | null) => {
    const encoder = device.createCommandEncoder();
    encode(encoder, begin, commands.length, clock);
    moveOn(encoder);
    clock?.copy(encoder, staging);
    let offset = clock?.bytes ?? 0;
    for (const { x, bytes } of outputs) {
      const source = regionOf(operandOf(x));
      encoder.copyBufferToBuffer(source.buffer, source.offset, staging, offset, bytes);
      offset += bytes;
    }
    device.queue.submit([encoder.finish()]);
  };

  // At each stop a part of the program has come to its end, and what it gives is exchanged. Tensors that go the same way
  // and are needed at the same time share a message; messages are under way while the device goes on.
  const halts: { readonly messages: readonly Bucket[]; readonly staging: GPUBuffer }[] = [];
  for (const { exchanges } of syncPoints) {
    const groups = Map.groupBy(exchanges, ({ kind, segment }) => `${kind} ${segment}`);
    let offset = 0;
    const messages = [...groups.values()].map((parts): Bucket => {
      const bytes = parts.reduce((total, { from }) => total + bytesOf(from), 0);
      return { ...parts[0], parts, offset: (offset += bytes) - bytes, bytes };
    });
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    halts.push({ messages, staging: yield* gpu.buffer("what ranks exchange", offset, usage) });
  }
  const spent = { device: 0, exchange: 0 };

  /** Runs all segments but the last. */
  const passStops = Effect.fnUntraced(function* (clock: Clock | null, note: Note) {
    const underWay: { message: Bucket; fiber: Fiber.Fiber<Float32Array, CollectiveError> }[] = [];
    /** Puts what segment `segment` reads in its place. */
    const deliver = Effect.fnUntraced(function* (segment: number) {
      const start = performance.now();
      for (
        const { message: { kind, parts, bytes }, fiber } of underWay.filter((m) =>
          m.message.segment === segment
        )
      ) {
        const values = yield* Fiber.join(fiber) as Effect.Effect<Float32Array<ArrayBuffer>, CollectiveError>;
        let at = 0;
        for (const { from, to } of parts) {
          const size = sizeOf(from.shape);
          const target = regionOf(to);
          for (let rank = 0; rank < (kind === "gather" ? collective.world : 1); rank++) {
            const own = values.subarray(rank * bytes / 4 + at, rank * bytes / 4 + at + size);
            device.queue.writeBuffer(target.buffer, target.offset + rank * size * 4, own);
          }
          at += size;
        }
      }
      spent.exchange += performance.now() - start;
      note("wait for other ranks", start);
    });

    for (const [i, { messages, staging }] of halts.entries()) {
      yield* deliver(i);
      const encoding = performance.now();
      const encoder = device.createCommandEncoder();
      encode(encoder, i === 0 ? 0 : syncPoints[i - 1].after, syncPoints[i].after, clock);
      for (const { parts, offset } of messages) {
        let at = offset;
        for (const { from } of parts) {
          const source = regionOf(from);
          encoder.copyBufferToBuffer(source.buffer, source.offset, staging, at, source.size);
          at += source.size;
        }
      }
      device.queue.submit([encoder.finish()]);
      note("encode and submit", encoding);
      const start = performance.now();
      yield* mapped(staging);
      const data = staging.getMappedRange().slice(0);
      staging.unmap();
      spent.device += performance.now() - start;
      note("wait for the device", start);
      for (const message of messages) {
        const own = new Float32Array(data, message.offset, message.bytes / 4);
        const exchange = message.kind === "gather" ? collective.allGather(own) : collective.allReduceSum(own);
        underWay.push({ message, fiber: yield* Effect.forkChild(exchange, { startImmediately: true }) });
      }
    }
    yield* deliver(halts.length);
  });

  /** Submits a run; the inner effect gives its outputs and the stamps of `clock`, begin and end of each span. */
  const start = Effect.fnUntraced(function* (
    values: Readonly<Record<string, Upload>>,
    { clock, nextStaging }: Effect.Success<ReturnType<typeof recorder>>,
    note: Note,
  ) {
    const missing = [...uploads.keys()].filter((name) => values[name] === undefined);
    if (missing.length > 0) {
      return yield* Effect.die(new Error(`no value given for the inputs ${missing.join(", ")}`));
    }
    const staging = nextStaging();
    const filling = performance.now();
    fill(values);
    note("upload", filling);
    if (syncPoints.length > 0) yield* passStops(clock, note);
    const encoding = performance.now();
    submitLast(syncPoints.at(-1)?.after ?? 0, staging, clock);
    note("encode and submit", encoding);
    return Effect.gen(function* () {
      const waiting = performance.now();
      yield* mapped(staging);
      yield* gpu.check;
      const data = staging.getMappedRange().slice(0);
      staging.unmap();
      note("wait for the device", waiting);
      const stamps = clock === null ? null : new BigUint64Array(data, 0, clock.bytes / 8);
      stageSeconds = stamps === null ? null : secondsOf(clock!.spans, stamps, yield* time);
      let offset = clock?.bytes ?? 0;
      const results = Object.fromEntries(outputs.map(({ name, x, bytes }) => {
        const values = x.dtype === "f32"
          ? new Float32Array(data, offset, bytes / 4)
          : Float32Array.from(new Uint32Array(data, offset, bytes / 4));
        offset += bytes;
        return [name, values];
      }));
      return { outputs: results, stamps };
    });
  });

  const profiler: Program["profiler"] = Effect.gen(function* () {
    const starts = lowered.scheduledFor.map((x, first) => ({ first, stage: graph.stageOf?.(x) ?? "" }));
    const clock = yield* clockOf(gpu, starts, kernels.length);
    if (clock !== null) yield* time;
    const detailed = yield* recorder(clock);
    return Effect.fnUntraced(function* (values: Readonly<Record<string, Upload>>) {
      const host: TimedWork[] = [];
      const note = (name: string, begin: number) => host.push({ name, begin, end: performance.now() });
      const reading = yield* start(values, detailed, note);
      return Effect.gen(function* () {
        const { outputs, stamps } = yield* reading;
        if (stamps === null) return { outputs, host, kernels: null };
        const timed = intervals(stamps, yield* time).map((interval, i): TimedKernel => {
          const kernel = kernels[i];
          return {
            ...interval,
            name: kernel.label,
            kernel,
            makes: lowered.produces[i],
            stage: starts[i].stage,
          };
        });
        return { outputs, host, kernels: timed };
      });
    });
  });

  return {
    plan,
    recomputed: lowered.recomputed,
    dispatches: commands.length,
    choices: lowered.choices,
    profiler,
    stageSeconds: () => stageSeconds,
    syncPoints: syncPoints.length,
    exchanges: syncPoints.reduce((total, { exchanges }) => total + exchanges.length, 0),
    exchangedBytes: halts.reduce((total, { staging }) => total + staging.size, 0),
    spent,
    run: (values) =>
      Effect.map(start(values, usual, () => {}), (reading) => Effect.map(reading, ({ outputs }) => outputs)),
  } satisfies Program as Program;
});

/** Takes note of what the host has done since `begin`. */
type Note = (name: string, begin: number) => void;

/** Where the stages of a graph begin; nothing where it names none. */
const stageStarts = ({ stageOf }: Graph, { scheduledFor, syncPoints }: Lowered) => {
  if (stageOf === undefined) return [];
  const stages = scheduledFor.map(stageOf);
  const begins = new Set(syncPoints.map(({ after }) => after)); // a stop ends a pass, too
  return [...stages.keys()].filter((i) => stages[i] !== stages[i - 1] || begins.has(i))
    .map((first) => ({ first, stage: stages[first] }));
};

/** Tensors that are exchanged as one. */
interface Bucket {
  readonly kind: "gather" | "sum";
  readonly segment: number;
  readonly parts: SyncPoint["exchanges"];
  readonly offset: number; // in the stop's staging buffer, in bytes
  readonly bytes: number;
}

/** Evaluates a tensor that depends on constants only: for tests and for looking around. */
export const evaluate = (
  x: Tensor,
): Effect.Effect<Float32Array, GpuError | PlanError | CollectiveError, Gpu> =>
  Effect.scoped(Effect.gen(function* () {
    const program = yield* compile({ label: "evaluate", outputs: { x } });
    return (yield* yield* program.run({})).x;
  }));
