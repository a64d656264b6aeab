/** The device's clock: when spans of a program's kernels began and ended, by timestamp queries. */
import { Effect } from "effect";
import { type GpuShape, mapped } from "./gpu.ts";

/** Kernels that follow each other and are timed together: in a pass of their own, for only passes have timestamps. */
export interface Span {
  readonly stage: string;
  readonly first: number;
  readonly end: number; // the first kernel that is not of it
  readonly timestampWrites: GPUComputePassTimestampWrites;
}

/** Times spans of a program. */
export interface Clock {
  readonly spans: readonly Span[];
  readonly bytes: number; // of a run's timestamps; they lie before its outputs
  readonly copy: (encoder: GPUCommandEncoder, target: GPUBuffer) => void;
}

const MOST_QUERIES = 4096; // of a query set

/** A clock for spans that begin so; null where there are none, or the adapter has no timestamps. */
export const clockOf = Effect.fnUntraced(function* (
  { device, buffer }: GpuShape,
  starts: readonly { readonly first: number; readonly stage: string }[],
  kernels: number,
) {
  if (starts.length === 0 || !device.features.has("timestamp-query")) return null;
  const queries = 2 * starts.length;
  const sets: { readonly set: GPUQuerySet; readonly count: number }[] = [];
  for (let at = 0; at < queries; at += MOST_QUERIES) {
    const count = Math.min(MOST_QUERIES, queries - at);
    const set = yield* Effect.acquireRelease(
      Effect.sync(() => device.createQuerySet({ type: "timestamp", count })),
      (set) => Effect.sync(() => set.destroy()),
    );
    sets.push({ set, count });
  }
  const bytes = 8 * queries;
  const times = yield* buffer("timestamps", bytes, GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC);
  return {
    spans: starts.map(({ first, stage }, i): Span => {
      const query = 2 * i % MOST_QUERIES;
      return {
        stage,
        first,
        end: starts[i + 1]?.first ?? kernels,
        timestampWrites: {
          querySet: sets[Math.floor(2 * i / MOST_QUERIES)].set,
          beginningOfPassWriteIndex: query,
          endOfPassWriteIndex: query + 1,
        },
      };
    }),
    bytes,
    copy: (encoder, target) => {
      sets.forEach(({ set, count }, i) =>
        encoder.resolveQuerySet(set, 0, count, times, 8 * MOST_QUERIES * i)
      );
      encoder.copyBufferToBuffer(times, 0, target, 0, bytes);
    },
  } satisfies Clock as Clock;
});

/** How the device's stamps are to be read. */
export interface DeviceTime {
  /** Nanoseconds that a stamp counts. */
  readonly tick: number;
  /** What to add to the device's milliseconds to have those of `performance.now()`. */
  readonly toHost: number;
}

/**
 * When each span began and ended, in milliseconds as `performance.now()` gives them: of spans that the device overlaps, the
 * later one begins as the other ends.
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

/** Seconds of each stage. */
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
const BETWEEN = "10 millis";

/** Looks how the device's clock and the host's go together, by work that takes no time. */
export const deviceTime = Effect.fnUntraced(function* (gpu: GpuShape) {
  const { device, buffer } = gpu;
  const clock = (yield* clockOf(gpu, [{ first: 0, stage: "" }], 0))!;
  const staging = yield* buffer("timestamps", clock.bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  const pulses: Pulse[] = [];
  for (let i = 0; i <= PULSES; i++) {
    if (i > 1) yield* Effect.sleep(BETWEEN);
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
}, Effect.scoped);

/** Work that an idle device is told to do, at which moment of the host, and its own stamp as it began. */
export interface Pulse {
  readonly submitted: number; // milliseconds
  readonly begin: bigint;
}

/**
 * Stamps are nanoseconds by the standard, but the driver's own ticks where a WebGPU leaves them as they are: 10 or 83 ns
 * long, say. Only such a difference is believed, as a busy host measures badly. The offset is that of the pulse that began
 * soonest after it was submitted: to some tenths of a millisecond.
 */
export const deviceTimeOf = (pulses: readonly Pulse[]): DeviceTime => {
  const [first, last] = [pulses[0], pulses[pulses.length - 1]];
  const ticks = Number(last.begin - first.begin);
  const measured = (last.submitted - first.submitted) * 1e6 / ticks;
  const tick = ticks <= 0 || measured > 1 / 3 && measured < 3 ? 1 : measured;
  const offsets = pulses.map(({ submitted, begin }) => submitted - Number(begin) * tick / 1e6);
  return { tick, toHost: Math.max(...offsets) };
};
