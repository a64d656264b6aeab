/** The device as a service: adapter, limits, buffers, pipelines, reading back. A scoped Layer owns it all. */
import { Context, Effect, Schema, type Scope } from "effect";
import type { AdapterReport, AdapterTraits, Backend } from "../graph/lowering.ts";

/** What went wrong on the device, and what the user can do about it. */
export class GpuError extends Schema.TaggedError<GpuError>()("GpuError", {
  during: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
}) {
  override get message() {
    return `Cannot ${this.during}: ${this.reason}. ${this.remedy}`;
  }
}

/** A program stores f16, which this adapter cannot. */
export const lacksHalf = (program: string, adapter: string): GpuError =>
  new GpuError({
    during: `run ${program} in half precision`,
    reason: `${adapter} has no shader-f16`,
    remedy: "Use --precision f32",
  });

/** The first bytes of a buffer. */
export interface Region {
  readonly buffer: GPUBuffer;
  readonly bytes: number;
}

export interface GpuShape {
  readonly device: GPUDevice;
  readonly report: AdapterReport;
  readonly traits: AdapterTraits;
  /** A buffer that is destroyed with the scope; filled with zeros. */
  readonly buffer: (
    label: string,
    bytes: number,
    usage: number,
  ) => Effect.Effect<GPUBuffer, GpuError, Scope.Scope>;
  /** The compute pipeline of a shader; the same code is compiled once. Entry point `main`. */
  readonly pipeline: (label: string, code: string) => Effect.Effect<GPUComputePipeline, GpuError>;
  /**
   * Copies the first `bytes` (a multiple of 4) of buffers, as they are after all work submitted so far. The inner effect
   * brings the copies to the host; it blocks the thread until the device is there.
   */
  readonly read: (
    regions: readonly Region[],
  ) => Effect.Effect<Effect.Effect<ArrayBuffer[], GpuError>, GpuError>;
  /** Fails if the device reported an error since the last call: WebGPU's errors are silent otherwise. */
  readonly check: Effect.Effect<void, GpuError>;
}

export class Gpu extends Context.Service<Gpu, GpuShape>()("slotcon/Gpu") {}

/** Usage of buffers that hold tensors: bound as storage, filled and read back by copies. */
export const STORAGE = 0x80 | 0x08 | 0x04; // STORAGE, COPY_DST, COPY_SRC; Dawn brings the names later

/** Deno's types lack one of WebGPU's properties. */
export type Wgpu = GPU & { readonly wgslLanguageFeatures: ReadonlySet<string> };

export const service = (
  backend: Backend,
  { wgslLanguageFeatures }: Wgpu,
  adapter: GPUAdapter,
  device: GPUDevice,
) =>
  Effect.gen(function* () {
    const { info } = adapter;
    const limits: Record<string, number> = {};
    for (const name in adapter.limits) {
      const value = adapter.limits[name as keyof GPUSupportedLimits];
      if (typeof value === "number") limits[name] = value;
    }
    // Dawn tells of its software adapters by name only.
    const cpu = info.isFallbackAdapter ||
      /llvmpipe|swiftshader|software|lavapipe/i.test(
        `${info.description} ${info.device} ${info.architecture}`,
      );
    const report: AdapterReport = {
      backend,
      vendor: info.vendor,
      architecture: info.architecture,
      description: info.description || info.device,
      software: cpu,
      features: [...adapter.features].sort(),
      limits,
    };

    let failure: GpuError | null = null;
    const fail = (during: string, reason: string, remedy: string) => {
      failure ??= new GpuError({ during, reason: reason.trim().replace(/\.$/, ""), remedy });
    };
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      fail(
        "run on the GPU",
        error.message,
        "If memory ran out, lower --batch-size or set --memory-limit; else please report this",
      );
    });
    let closing = false;
    yield* Effect.addFinalizer(() => Effect.sync(() => closing = true));
    device.lost.then((info) => { // of Dawn's making, and not to be read when the process ends
      if (!closing) fail("go on", `the device was lost (${info.message || "no reason given"})`, LOST);
    });

    const check = Effect.suspend(() => {
      const error = failure;
      failure = null;
      return error === null ? Effect.void : Effect.fail(error);
    });

    /** Runs a creation and turns WebGPU's validation and memory errors into a typed one. */
    const guarded = <A>(during: string, remedy: string, create: () => A | Promise<A>) =>
      Effect.tryPromise({
        try: async () => {
          device.pushErrorScope("out-of-memory");
          device.pushErrorScope("validation");
          const made = await create();
          const [invalid, exhausted] = await Promise.all([device.popErrorScope(), device.popErrorScope()]);
          const error = invalid ?? exhausted;
          if (error !== null) throw new Error(error.message);
          return made;
        },
        catch: (error) =>
          new GpuError({ during, reason: error instanceof Error ? error.message : String(error), remedy }),
      });

    const pipelines = new Map<string, GPUComputePipeline>();
    const shape: GpuShape = {
      device,
      report,
      traits: {
        cpu,
        maxStorageBuffers: Math.min(limits.maxStorageBuffersPerShaderStage, 24),
        maxBinding: limits.maxStorageBufferBindingSize,
        shaderF16: device.features.has("shader-f16"),
        minSubgroupSize: device.features.has("subgroups") && wgslLanguageFeatures.has("subgroup_id")
          ? info.subgroupMinSize
          : 0,
      },
      check,
      buffer: (label, bytes, usage) =>
        Effect.acquireRelease(
          guarded(
            `reserve ${(bytes / 2 ** 20).toFixed(1)} MiB for ${label}`,
            LOWER,
            () => device.createBuffer({ label, size: Math.ceil(bytes / 16) * 16, usage }),
          ),
          (buffer) => Effect.sync(() => buffer.destroy()),
        ),
      pipeline: (label, code) =>
        Effect.suspend(() => {
          const known = pipelines.get(code);
          if (known !== undefined) return Effect.succeed(known);
          return guarded(
            `compile the kernel ${label}`,
            "Please report this with the output of `slotcon doctor`",
            () =>
              device.createComputePipeline({
                label,
                layout: "auto",
                compute: { module: device.createShaderModule({ label, code }), entryPoint: "main" },
              }),
          ).pipe(Effect.tap((pipeline) => Effect.sync(() => pipelines.set(code, pipeline))));
        }),
      read: (regions) =>
        Effect.gen(function* () {
          const parts = inParts(regions);
          const encoder = device.createCommandEncoder();
          const stagings: GPUBuffer[] = [];
          for (const part of parts) {
            const bytes = part.reduce((sum, region) => sum + region.bytes, 0);
            const staging = yield* guarded(
              "reserve memory for reading back",
              LOWER,
              () =>
                device.createBuffer({
                  size: bytes,
                  usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
                }),
            );
            stagings.push(staging);
            let offset = 0;
            for (const region of part) {
              encoder.copyBufferToBuffer(region.buffer, 0, staging, offset, region.bytes);
              offset += region.bytes;
            }
          }
          device.queue.submit([encoder.finish()]);
          return Effect.gen(function* () {
            // Several maps at once take no longer than one.
            yield* Effect.all(stagings.map(mapped), { concurrency: "unbounded" });
            yield* check;
            return stagings.flatMap((staging, i) => {
              const data = staging.getMappedRange();
              let offset = 0;
              return parts[i].map(({ bytes }) => data.slice(offset, offset += bytes));
            });
          }).pipe(Effect.ensuring(Effect.sync(() => stagings.forEach((staging) => staging.destroy()))));
        }),
    };
    return shape;
  });

const LOWER = "Lower --batch-size, set --memory-limit, or free this GPU";
const LOST =
  "Lower --batch-size, set --memory-limit, or update the driver; --auto-resume continues from the last checkpoint";

/** Regions in their order, in parts that one buffer can take. */
const inParts = (regions: readonly Region[]): Region[][] => {
  const parts: Region[][] = [];
  let total = Infinity;
  for (const region of regions) {
    if (total + region.bytes > 2 ** 28) {
      parts.push([]);
      total = 0;
    }
    parts[parts.length - 1].push(region);
    total += region.bytes;
  }
  return parts;
};

/** Waits until a buffer's content can be read by the host. */
export const mapped = (buffer: GPUBuffer): Effect.Effect<void, GpuError> =>
  Effect.tryPromise({
    try: () => buffer.mapAsync(GPUMapMode.READ),
    catch: (error) => new GpuError({ during: "read from the GPU", reason: String(error), remedy: LOST }),
  });
