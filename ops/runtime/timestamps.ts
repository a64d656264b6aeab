/** Times on the device by timestamp queries: when spans of a program's kernels began and ended. */
import { Effect, type Scope } from "effect";
import { type Gpu, type GpuError, mapped } from "./gpu.ts";

/** Consecutive kernels that are timed together, in a pass of their own: only passes have timestamps. */
export interface Span {
  /** The stage that its time counts for. */
  readonly stage: string;
  /** The first kernel. */
  readonly first: number;
  /** The first kernel after it. */
  readonly end: number;
  /** What makes a pass write its timestamps. */
  readonly timestampWrites: GPUComputePassTimestampWrites;
}

/** What times the spans of a program. */
export interface Clock {
  /** The spans, in the order of the program. */
  readonly spans: readonly Span[];
  /** Bytes of a run's timestamps: begin and end of each span, u64. */
  readonly bytes: number;
  /** Encodes the copy of a run's timestamps to the beginning of `target`. */
  readonly copy: (encoder: GPUCommandEncoder, target: GPUBuffer) => void;
}

/** Queries of a set, at most: WebGPU's limit. */
const MAX_QUERIES = 4096;

/**
 * A clock for the spans of a program of `kernels` kernels that begin at `starts`, until the scope ends. Null where
 * there are none, or the adapter lacks timestamp-query. Fails with GpuError.
 */
export const clockOf: (
  gpu: Gpu,
  starts: readonly { readonly first: number; readonly stage: string }[],
  kernels: number,
) => Effect.Effect<Clock | null, GpuError, Scope.Scope> = Effect.fnUntraced(
  function* ({ device, buffer }, starts, kernels) {
    if (starts.length === 0 || !device.features.has("timestamp-query")) return null;
    const queries = 2 * starts.length;
    const sets: { readonly set: GPUQuerySet; readonly count: number }[] = [];
    for (let at = 0; at < queries; at += MAX_QUERIES) {
      const count = Math.min(MAX_QUERIES, queries - at);
      const set = yield* Effect.acquireRelease(
        Effect.sync(() => device.createQuerySet({ type: "timestamp", count })),
        (set) => Effect.sync(() => set.destroy()),
      );
      sets.push({ set, count });
    }
    const bytes = 8 * queries;
    const resolved = yield* buffer(
      "timestamps",
      bytes,
      GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    );
    return {
      spans: starts.map(({ first, stage }, i): Span => {
        const query = 2 * i % MAX_QUERIES;
        return {
          stage,
          first,
          end: starts[i + 1]?.first ?? kernels,
          timestampWrites: {
            querySet: sets[Math.floor(2 * i / MAX_QUERIES)].set,
            beginningOfPassWriteIndex: query,
            endOfPassWriteIndex: query + 1,
          },
        };
      }),
      bytes,
      copy: (encoder, target) => {
        sets.forEach(({ set, count }, i) =>
          encoder.resolveQuerySet(set, 0, count, resolved, 8 * MAX_QUERIES * i)
        );
        encoder.copyBufferToBuffer(resolved, 0, target, 0, bytes);
      },
    };
  },
);

/** How to convert the device's timestamps to the host's time. */
export interface DeviceTime {
  /** Nanoseconds that one count of a timestamp is. */
  readonly tick: number;
  /** The offset of the host's clock: `performance.now()` minus the device's milliseconds. */
  readonly toHost: number;
}

/**
 * When each span began and ended, in milliseconds of `performance.now()`. Where the device overlaps spans, the later
 * one begins when the earlier one ends, so that no time is counted twice.
 */
export const intervals = (
  stamps: BigUint64Array,
  { tick, toHost }: DeviceTime,
): readonly { readonly begin: number; readonly end: number }[] => {
  let last = -Infinity;
  return Array.from({ length: stamps.length / 2 }, (_, i) => {
    const [began, ended] = [2 * i, 2 * i + 1].map((at) => Number(stamps[at]) * tick / 1e6 + toHost);
    const begin = Math.max(began, last);
    last = Math.max(ended, begin);
    return { begin, end: last };
  });
};

/** Seconds of each stage: the sum of its spans. */
export const secondsOf = (
  spans: readonly Span[],
  stamps: BigUint64Array,
  time: DeviceTime,
): Readonly<Record<string, number>> => {
  const seconds: Record<string, number> = {};
  intervals(stamps, time).forEach(({ begin, end }, i) => {
    const { stage } = spans[i];
    seconds[stage] = (seconds[stage] ?? 0) + (end - begin) / 1e3;
  });
  return seconds;
};

const PULSES = 3;
const BETWEEN_PULSES = "10 millis";

/** Measures how the clocks of device and host relate, by empty passes on an idle device. Fails with GpuError. */
export const deviceTime: (gpu: Gpu) => Effect.Effect<DeviceTime, GpuError> = Effect.fnUntraced(
  function* (gpu) {
    const { device, buffer } = gpu;
    const clock = (yield* clockOf(gpu, [{ first: 0, stage: "" }], 0))!;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = yield* buffer("timestamps", clock.bytes, usage);
    const pulses: Pulse[] = [];
    for (let i = 0; i <= PULSES; i++) {
      if (i > 1) yield* Effect.sleep(BETWEEN_PULSES);
      const encoder = device.createCommandEncoder();
      encoder.beginComputePass({ timestampWrites: clock.spans[0].timestampWrites }).end();
      clock.copy(encoder, staging);
      const commands = encoder.finish();
      const submitted = performance.now();
      device.queue.submit([commands]);
      yield* mapped(staging);
      const [begin] = new BigUint64Array(staging.getMappedRange().slice(0, 8));
      staging.unmap();
      if (i > 0) pulses.push({ submitted, begin }); // the first one waits for earlier work
    }
    return deviceTimeOf(pulses);
  },
  Effect.scoped,
);

/** An empty pass on an idle device. */
export interface Pulse {
  /** When the host submitted it, in milliseconds of `performance.now()`. */
  readonly submitted: number;
  /** The device's timestamp when it began. */
  readonly begin: bigint;
}

/**
 * The relation of the clocks that pulses show. Timestamps are nanoseconds by the standard, but some implementations
 * leave the driver's own ticks as they are, 10 or 83 ns long, say: only a factor of more than 3 is believed, since a
 * busy host measures badly. The offset is that of the pulse which began soonest after it was submitted, good to some
 * tenths of a millisecond.
 */
export const deviceTimeOf = (pulses: readonly Pulse[]): DeviceTime => {
  const [first, last] = [pulses[0], pulses[pulses.length - 1]];
  const ticks = Number(last.begin - first.begin);
  const measured = (last.submitted - first.submitted) * 1e6 / ticks;
  const tick = ticks <= 0 || measured > 1 / 3 && measured < 3 ? 1 : measured;
  const offsets = pulses.map(({ submitted, begin }) => submitted - Number(begin) * tick / 1e6);
  return { tick, toHost: Math.max(...offsets) };
};
