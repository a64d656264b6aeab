/** The device as a service: adapter, limits, buffers, pipelines, readback. The scoped layers of adapters.ts own it. */
import { Context, Data, Effect, type Scope } from "effect";
import type { AdapterReport, AdapterTraits, Backend } from "../graph/lowering.ts";

/** What kind of failure a GpuError is. */
export type GpuFailure = "adapter" | "package" | "precision" | "memory" | "kernel" | "run" | "lost";

/** What helps against each kind of failure. */
const REMEDIES: Readonly<Record<GpuFailure, string>> = {
  /** There is no adapter, or it gives no device. */
  adapter:
    "Install a Vulkan, Metal or DirectX 12 driver, or Mesa's software driver (Debian: mesa-vulkan-drivers)",
  /** The package of another WebGPU implementation cannot be loaded. */
  package: "Use Deno's own WebGPU, or install the npm package webgpu for this platform",
  /** A program stores f16, which the adapter cannot. */
  precision: "Use precision f32",
  /** A buffer cannot be created. */
  memory: "Lower the batch size, set a memory limit, or free this GPU",
  /** A shader or its pipeline is refused. */
  kernel: "Please report this with the adapter and its driver",
  /** WebGPU reported an error of work that was submitted before. */
  run: "If memory ran out, lower the batch size or set a memory limit; else please report this",
  /** The device was lost, or its memory cannot be read. */
  lost: "Lower the batch size, set a memory limit, or update the driver",
};

/** A failure of the device or its driver. */
export class GpuError extends Data.Error<{
  readonly kind: GpuFailure;
  /** What could not be done: completes "Cannot …". */
  readonly subject: string;
  /** Why not, as WebGPU says it. */
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "GpuError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What to change. */
  get remedy(): string {
    return REMEDIES[this.kind];
  }
  /** Subject, reason and remedy as two sentences. */
  override get message(): string {
    return `Cannot ${this.subject}: ${this.reason}. ${this.remedy}`;
  }
}

/** The error for a program that stores f16 on an adapter (its description) that cannot. */
export const lacksHalf = (program: string, adapter: string): GpuError =>
  new GpuError({
    kind: "precision",
    subject: `run ${program} in half precision`,
    reason: `${adapter} has no shader-f16`,
  });

/** The first bytes of a buffer. */
export interface Prefix {
  /** The buffer. */
  readonly buffer: GPUBuffer;
  /** How many, a multiple of 4. */
  readonly bytes: number;
}

/** An open GPU device. */
export interface Gpu {
  /** The WebGPU device. */
  readonly device: GPUDevice;
  /** What is known about the adapter. */
  readonly report: AdapterReport;
  /** What kernels depend on. */
  readonly traits: AdapterTraits;
  /** Creates a buffer of zeros, rounded up to a multiple of 16 bytes; it is destroyed with the scope. */
  readonly buffer: (
    label: string,
    bytes: number,
    usage: number,
  ) => Effect.Effect<GPUBuffer, GpuError, Scope.Scope>;
  /** The compute pipeline of a shader with the entry point `main`; the same code is compiled once for each device. */
  readonly pipeline: (label: string, code: string) => Effect.Effect<GPUComputePipeline, GpuError>;
  /**
   * Copies the first `bytes` (a multiple of 4) of buffers as they are after all work submitted so far. The inner effect
   * maps the copies; it blocks the thread until the device has made them.
   */
  readonly read: (
    prefixes: readonly Prefix[],
  ) => Effect.Effect<Effect.Effect<ArrayBuffer[], GpuError>, GpuError>;
  /** Fails if the device reported an error since the last call: WebGPU's errors are silent otherwise. */
  readonly check: Effect.Effect<void, GpuError>;
}

/** The key of the service: `yield* Gpu` gives the open device. */
export const Gpu: Context.Service<Gpu, Gpu> = Context.Service("slotcon/Gpu");

/**
 * Usage of buffers that hold tensors: STORAGE, COPY_DST and COPY_SRC. As a number, since `GPUBufferUsage` is not
 * defined before Dawn is loaded.
 */
export const STORAGE = 0x80 | 0x08 | 0x04;

/** WebGPU's entry point. Deno's types lack one of its properties. */
export type Wgpu = GPU & { readonly wgslLanguageFeatures: ReadonlySet<string> };

/** The service of an open device, whose lifetime is that of the scope. */
export const service: (
  backend: Backend,
  gpu: Wgpu,
  adapter: GPUAdapter,
  device: GPUDevice,
) => Effect.Effect<Gpu, never, Scope.Scope> = Effect.fnUntraced(
  function* (backend, { wgslLanguageFeatures }, adapter, device) {
    const report = reportOf(backend, adapter);
    const check = yield* errorCheck(device);
    return {
      device,
      report,
      traits: traitsOf(report, adapter, device, wgslLanguageFeatures),
      check,
      buffer: (label, bytes, usage) =>
        Effect.acquireRelease(
          guarded(
            device,
            "memory",
            `reserve ${(bytes / 2 ** 20).toFixed(1)} MiB for ${label}`,
            () => device.createBuffer({ label, size: Math.ceil(bytes / 16) * 16, usage }),
          ),
          (buffer) => Effect.sync(() => buffer.destroy()),
        ),
      pipeline: pipelineCache(device),
      read: (prefixes) => readback(device, prefixes, check),
    };
  },
);

const reportOf = (backend: Backend, { info, features, limits: supported }: GPUAdapter): AdapterReport => {
  const limits: Record<string, number> = {};
  for (const name in supported) {
    const value = supported[name as keyof GPUSupportedLimits];
    if (typeof value === "number") limits[name] = value;
  }
  // Dawn tells its software adapters by their names only.
  const names = `${info.description} ${info.device} ${info.architecture}`;
  return {
    backend,
    vendor: info.vendor,
    architecture: info.architecture,
    description: info.description || info.device,
    software: info.isFallbackAdapter || /llvmpipe|swiftshader|software|lavapipe/i.test(names),
    features: [...features].sort(),
    limits,
  };
};

const traitsOf = (
  { software, limits }: AdapterReport,
  { info }: GPUAdapter,
  { features }: GPUDevice,
  languageFeatures: ReadonlySet<string>,
): AdapterTraits => ({
  cpu: software,
  maxStorageBuffers: Math.min(limits.maxStorageBuffersPerShaderStage, 24),
  maxBinding: limits.maxStorageBufferBindingSize,
  shaderF16: features.has("shader-f16"),
  minSubgroupSize: features.has("subgroups") && languageFeatures.has("subgroup_id")
    ? info.subgroupMinSize
    : 0,
});

/** Listens for errors that WebGPU reports by events. The effect returned fails with the first one since it last ran. */
const errorCheck = Effect.fnUntraced(function* (device: GPUDevice) {
  let failure: GpuError | null = null;
  const fail = (kind: GpuFailure, subject: string, reason: string) => {
    failure ??= new GpuError({ kind, subject, reason: reason.trim().replace(/\.$/, "") });
  };
  device.addEventListener("uncapturederror", (event) => {
    fail("run", "run on the GPU", (event as GPUUncapturedErrorEvent).error.message);
  });
  let closing = false;
  yield* Effect.addFinalizer(() => Effect.sync(() => closing = true));
  device.lost.then((info) => { // an object of Dawn's, which must not be read once the process ends
    if (!closing) fail("lost", "go on", `the device was lost (${info.message || "no reason given"})`);
  });
  return Effect.suspend(() => {
    const error = failure;
    failure = null;
    return error === null ? Effect.void : Effect.fail(error);
  });
});

/** Creates an object of the device, and turns WebGPU's validation and memory errors into a GpuError. */
const guarded = <A>(
  device: GPUDevice,
  kind: GpuFailure,
  subject: string,
  create: () => A | Promise<A>,
): Effect.Effect<A, GpuError> =>
  Effect.tryPromise({
    try: async () => {
      device.pushErrorScope("out-of-memory");
      device.pushErrorScope("validation");
      const created = await create();
      const [invalid, exhausted] = await Promise.all([device.popErrorScope(), device.popErrorScope()]);
      const error = invalid ?? exhausted;
      if (error !== null) throw new Error(error.message);
      return created;
    },
    catch: (error) =>
      new GpuError({ kind, subject, reason: error instanceof Error ? error.message : String(error) }),
  });

/** Compiles pipelines, each code once. */
const pipelineCache = (device: GPUDevice): Gpu["pipeline"] => {
  const known = new Map<string, GPUComputePipeline>();
  const compile = (label: string, code: string) =>
    guarded(device, "kernel", `compile the kernel ${label}`, () =>
      device.createComputePipeline({
        label,
        layout: "auto",
        compute: { module: device.createShaderModule({ label, code }), entryPoint: "main" },
      }));
  return (label, code) =>
    Effect.suspend(() => {
      const pipeline = known.get(code);
      if (pipeline !== undefined) return Effect.succeed(pipeline);
      return Effect.tap(compile(label, code), (made) => Effect.sync(() => known.set(code, made)));
    });
};

/** Copies to staging buffers, by one submission; the inner effect maps them and destroys them. */
const readback = Effect.fnUntraced(function* (
  device: GPUDevice,
  prefixes: readonly Prefix[],
  check: Gpu["check"],
) {
  const groups = inGroups(prefixes);
  const encoder = device.createCommandEncoder();
  const stagings: GPUBuffer[] = [];
  for (const group of groups) {
    const size = group.reduce((sum, { bytes }) => sum + bytes, 0);
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = yield* guarded(
      device,
      "memory",
      "reserve memory for reading back",
      () => device.createBuffer({ size, usage }),
    );
    stagings.push(staging);
    let offset = 0;
    for (const { buffer, bytes } of group) {
      encoder.copyBufferToBuffer(buffer, 0, staging, offset, bytes);
      offset += bytes;
    }
  }
  device.queue.submit([encoder.finish()]);
  return Effect.gen(function* () {
    yield* Effect.all(stagings.map(mapped), { concurrency: "unbounded" }); // takes no longer than the last of them
    yield* check;
    return stagings.flatMap((staging, i) => {
      const data = staging.getMappedRange();
      let offset = 0;
      return groups[i].map(({ bytes }) => data.slice(offset, offset += bytes));
    });
  }).pipe(Effect.ensuring(Effect.sync(() => stagings.forEach((staging) => staging.destroy()))));
});

/** Bytes of a staging buffer, unless a single tensor takes more. */
const STAGING_BYTES = 2 ** 28;

/** Prefixes in their order, in groups that share a staging buffer. */
const inGroups = (prefixes: readonly Prefix[]): Prefix[][] => {
  const groups: Prefix[][] = [];
  let total = Infinity;
  for (const prefix of prefixes) {
    if (total + prefix.bytes > STAGING_BYTES) {
      groups.push([]);
      total = 0;
    }
    groups[groups.length - 1].push(prefix);
    total += prefix.bytes;
  }
  return groups;
};

/** Waits until the host can read a buffer's content. Fails with GpuError where the device was lost. */
export const mapped = (buffer: GPUBuffer): Effect.Effect<void, GpuError> =>
  Effect.tryPromise({
    try: () => buffer.mapAsync(GPUMapMode.READ),
    catch: (error) => new GpuError({ kind: "lost", subject: "read from the GPU", reason: String(error) }),
  });
