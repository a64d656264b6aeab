/**
 * Collectives run on the host: a program is split at its sync points into segments. At a sync point the operands are
 * read back and exchanged with the other ranks, and the results are uploaded before the first segment that reads them.
 */
import { Effect, Fiber, type Scope } from "effect";
import type { Lowered } from "../compiler/lower.ts";
import type { SyncPoint } from "../compiler/sync_points.ts";
import { bytesOf } from "../graph/kernel.ts";
import { sizeOf } from "../graph/shape.ts";
import type { RegionOf } from "./buffers.ts";
import { Collective, type CollectiveError } from "./collective.ts";
import { type Dispatch, encodePasses } from "./dispatches.ts";
import { Gpu, type GpuError, mapped } from "./gpu.ts";
import type { RecordHostWork } from "./profiler.ts";
import type { Clock } from "./timestamps.ts";

/** A program's kernels and tensors, bound to the buffers that hold them now. */
export interface Bound {
  /** The kernels, in the order of the program. */
  readonly dispatches: readonly Dispatch[];
  /** Finds the buffer region of an operand. */
  readonly regionOf: RegionOf;
}

/** The segments of a program that end at a sync point. */
export interface SyncSegments {
  /** Runs them; the result is the first kernel of the last segment, which ends at none. */
  readonly run: (
    program: Bound,
    clock: Clock | null,
    record: RecordHostWork,
  ) => Effect.Effect<number, GpuError | CollectiveError>;
  /** Bytes that a rank contributes to a run's exchanges. */
  readonly bytes: number;
  /** Milliseconds spent at sync points by all runs so far, see `Program.spent`. */
  readonly spent: { readonly device: number; readonly exchange: number };
}

/** Operands that are exchanged in one message: of one kind, and needed by the same segment. */
interface Bucket {
  readonly kind: "gather" | "sum";
  /** The segment before which the result is uploaded. */
  readonly segment: number;
  readonly exchanges: SyncPoint["exchanges"];
  readonly offset: number; // in the sync point's exchange buffer, in bytes
  readonly bytes: number;
}

/** A message that is on its way while the device runs further segments. */
interface Pending {
  readonly bucket: Bucket;
  readonly fiber: Fiber.Fiber<Float32Array, CollectiveError>;
}

/** Reserves an exchange buffer for each sync point, until the scope ends. Fails with GpuError. */
export const syncSegments: (
  lowered: Pick<Lowered, "syncPoints">,
) => Effect.Effect<SyncSegments, GpuError, Gpu | Scope.Scope> = Effect.fnUntraced(function* ({ syncPoints }) {
  const gpu = yield* Gpu;
  const { queue } = gpu.device;
  const collective = yield* Collective;
  const segments: {
    readonly end: number;
    readonly buckets: readonly Bucket[];
    readonly buffer: GPUBuffer;
  }[] = [];
  for (const { after, exchanges } of syncPoints) {
    const buckets = bucketsOf(exchanges);
    const bytes = buckets.reduce((total, bucket) => total + bucket.bytes, 0);
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    segments.push({ end: after, buckets, buffer: yield* gpu.buffer("what ranks exchange", bytes, usage) });
  }
  const spent = { device: 0, exchange: 0 };

  /** Runs the kernels of a segment, and reads back the operands that are exchanged at its end. */
  const runSegment = Effect.fnUntraced(function* (
    i: number,
    { dispatches, regionOf }: Bound,
    clock: Clock | null,
    record: RecordHostWork,
  ) {
    const { end, buckets, buffer } = segments[i];
    const encoding = performance.now();
    const encoder = gpu.device.createCommandEncoder();
    encodePasses(encoder, dispatches, i === 0 ? 0 : segments[i - 1].end, end, clock);
    for (const { exchanges, offset } of buckets) {
      let at = offset;
      for (const { from } of exchanges) {
        const source = regionOf(from);
        encoder.copyBufferToBuffer(source.buffer, source.offset, buffer, at, source.size);
        at += source.size;
      }
    }
    queue.submit([encoder.finish()]);
    record("encode and submit", encoding);
    const waiting = performance.now();
    yield* mapped(buffer);
    const data = buffer.getMappedRange().slice(0);
    buffer.unmap();
    spent.device += performance.now() - waiting;
    record("wait for the device", waiting);
    return data;
  });

  /** Starts the exchanges at the end of a segment. */
  const exchange = Effect.fnUntraced(function* (buckets: readonly Bucket[], data: ArrayBuffer) {
    const pending: Pending[] = [];
    for (const bucket of buckets) {
      const own = new Float32Array(data, bucket.offset, bucket.bytes / 4);
      const call = bucket.kind === "gather" ? collective.allGather(own) : collective.allReduceSum(own);
      pending.push({ bucket, fiber: yield* Effect.forkChild(call, { startImmediately: true }) });
    }
    return pending;
  });

  /** Awaits exchanges, and uploads their results. */
  const deliver = Effect.fnUntraced(function* (
    pending: readonly Pending[],
    regionOf: RegionOf,
    record: RecordHostWork,
  ) {
    const waiting = performance.now();
    for (const { bucket: { kind, exchanges, bytes }, fiber } of pending) {
      const values = yield* Fiber.join(fiber) as Effect.Effect<Float32Array<ArrayBuffer>, CollectiveError>;
      let offset = 0;
      for (const { from, to } of exchanges) {
        const size = sizeOf(from.shape);
        const target = regionOf(to);
        for (let rank = 0; rank < (kind === "gather" ? collective.world : 1); rank++) {
          const first = rank * bytes / 4 + offset;
          queue.writeBuffer(
            target.buffer,
            target.offset + rank * size * 4,
            values.subarray(first, first + size),
          );
        }
        offset += size;
      }
    }
    spent.exchange += performance.now() - waiting;
    record("wait for other ranks", waiting);
  });

  const run: SyncSegments["run"] = Effect.fnUntraced(function* (program, clock, record) {
    const pending: Pending[] = [];
    const deliverTo = (segment: number) =>
      deliver(pending.filter(({ bucket }) => bucket.segment === segment), program.regionOf, record);
    for (const [i, { buckets }] of segments.entries()) {
      yield* deliverTo(i);
      const data = yield* runSegment(i, program, clock, record);
      pending.push(...yield* exchange(buckets, data));
    }
    if (segments.length > 0) yield* deliverTo(segments.length);
    return segments.at(-1)?.end ?? 0;
  });
  return { run, spent, bytes: segments.reduce((total, { buffer }) => total + buffer.size, 0) };
});

/** Groups the exchanges of a sync point into messages. */
const bucketsOf = (exchanges: SyncPoint["exchanges"]): readonly Bucket[] => {
  let offset = 0;
  return [...Map.groupBy(exchanges, ({ kind, segment }) => `${kind} ${segment}`).values()].map((alike) => {
    const bytes = alike.reduce((total, { from }) => total + bytesOf(from), 0);
    const bucket = {
      kind: alike[0].kind,
      segment: alike[0].segment,
      exchanges: alike,
      offset,
      bytes,
    };
    offset += bytes;
    return bucket;
  });
};
