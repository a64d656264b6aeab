/** Profiling a program: runs that time each kernel and the host's work. */
import { Effect, type Scope } from "effect";
import type { Graph } from "../compiler/graph.ts";
import type { Lowered } from "../compiler/lower.ts";
import type { Kernel } from "../graph/kernel.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Upload } from "./buffers.ts";
import type { CollectiveError } from "./collective.ts";
import { Gpu, type GpuError } from "./gpu.ts";
import { type OutputRing, outputRing, type Outputs } from "./outputs.ts";
import { clockOf, type DeviceTime, intervals } from "./timestamps.ts";

/** A run and its times, in milliseconds of `performance.now()`. */
export interface ProfiledRun {
  /** The outputs of the run. */
  readonly outputs: Outputs;
  /** In the order of their dispatch, each beginning when the previous one has ended; null without timestamp-query. */
  readonly kernels: readonly TimedKernel[] | null;
  /** What this thread did, or waited for. */
  readonly host: readonly TimedWork[];
}

/** Named work and when it began and ended, in milliseconds of `performance.now()`. */
export interface TimedWork {
  /** What was done. */
  readonly name: string;
  /** Milliseconds of `performance.now()`. */
  readonly begin: number;
  /** Milliseconds of `performance.now()`. */
  readonly end: number;
}

/** A kernel's execution. */
export interface TimedKernel extends TimedWork {
  /** The kernel. */
  readonly kernel: Kernel;
  /** The tensor that it computes, or a part of it. */
  readonly makes: Tensor;
  /** Its stage; "" where the graph names none. */
  readonly stage: string;
}

/** Takes down work of the host that has just ended and began at `begin` (milliseconds of `performance.now()`). */
export type RecordHostWork = (name: string, begin: number) => void;

/** Submits a run whose outputs and times go through `ring`; the inner effect awaits them. */
export type StartRun = (
  values: Readonly<Record<string, Upload>>,
  ring: OutputRing,
  record: RecordHostWork,
) => Effect.Effect<
  Effect.Effect<ReturnType<OutputRing["decode"]>, GpuError>,
  GpuError | CollectiveError
>;

/** Runs a program once with profiling; the inner effect awaits its outputs and times. */
export type ProfileRun = (
  values: Readonly<Record<string, Upload>>,
) => Effect.Effect<Effect.Effect<ProfiledRun, GpuError>, GpuError | CollectiveError>;

/** Prepares profiled runs: every kernel gets a pass of its own, for only passes have timestamps. */
export const profilerOf: (
  graph: Graph,
  lowered: Lowered,
  start: StartRun,
  time: Effect.Effect<DeviceTime, GpuError>,
) => Effect.Effect<ProfileRun, GpuError, Gpu | Scope.Scope> = Effect.fnUntraced(
  function* (graph, lowered, start, time) {
    const { kernels, produces, scheduledFor } = lowered;
    const stages = scheduledFor.map((x) => graph.stageOf?.(x) ?? "");
    const starts = stages.map((stage, first) => ({ first, stage }));
    const clock = yield* clockOf(yield* Gpu, starts, kernels.length);
    if (clock !== null) yield* time; // now, while the device is idle
    const ring = yield* outputRing(graph, lowered, clock);
    return Effect.fnUntraced(function* (values) {
      const host: TimedWork[] = [];
      const reading = yield* start(values, ring, (name, begin) => {
        host.push({ name, begin, end: performance.now() });
      });
      return Effect.gen(function* () {
        const { outputs, stamps } = yield* reading;
        if (stamps === null) return { outputs, host, kernels: null };
        const timed = intervals(stamps, yield* time).map((interval, i): TimedKernel => ({
          ...interval,
          name: kernels[i].label,
          kernel: kernels[i],
          makes: produces[i],
          stage: stages[i],
        }));
        return { outputs, host, kernels: timed };
      });
    });
  },
);
