/** Where a device comes from: WebGPU as the runtime has it (Deno's own, or a browser's), or Dawn. */
import { Effect, Layer, type Scope } from "effect";
import type { Backend } from "../graph/lowering.ts";
import { setImmediateForDawn } from "./dawn_polls.ts";
import { Gpu, GpuError, service, type Wgpu } from "./gpu.ts";

/** The limits that programs make use of: WebGPU's defaults are small, so the adapter's own are requested. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** Features that are used where the adapter has them. */
const OPTIONAL_FEATURES: readonly GPUFeatureName[] = ["timestamp-query", "shader-f16", "subgroups"];

/** Opens the high-performance adapter of a WebGPU implementation; the device is destroyed with the scope. */
const open = Effect.fnUntraced(function* (
  backend: Backend,
  gpu: GPU | undefined,
): Effect.fn.Return<Gpu, GpuError, Scope.Scope> {
  const failed = (reason: string) =>
    new GpuError({ kind: "adapter", subject: `use the GPU (${backend})`, reason });
  if (gpu === undefined) return yield* failed("this runtime has no WebGPU");
  yield* Effect.addFinalizer(() => Effect.sync(() => void gpu)); // if it were collected, Dawn would abort the process
  const adapter = yield* Effect.tryPromise({
    try: () => gpu.requestAdapter({ powerPreference: "high-performance" }),
    catch: (error) => failed(String(error)),
  });
  if (adapter === null) return yield* failed("no adapter was found");
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  const requiredFeatures = OPTIONAL_FEATURES.filter((feature) => adapter.features.has(feature));
  const device = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () => adapter.requestDevice({ requiredLimits, requiredFeatures }),
      catch: (error) => failed(String(error)),
    }),
    (device) => Effect.sync(() => device.destroy()),
  );
  return yield* service(backend, gpu as Wgpu, adapter, device);
});

/** The runtime's own WebGPU, `navigator.gpu`: Deno's, or a browser's. Fails with GpuError. */
export const native: Layer.Layer<Gpu, GpuError> = Layer.effect(
  Gpu,
  Effect.suspend(() => open("native", navigator.gpu)),
);

/** Dawn, Chromium's WebGPU, from the npm package `webgpu`: faster readback, needs FFI. Fails with GpuError. */
export const dawn: Layer.Layer<Gpu, GpuError> = Layer.effect(
  Gpu,
  Effect.tryPromise({
    try: async () => {
      const { create, globals } = await import("webgpu");
      Object.assign(globalThis, globals, { setImmediate: setImmediateForDawn });
      return create(["disable-dawn-features=timestamp_quantization"]); // would round times to 65 µs
    },
    catch: (error) => new GpuError({ kind: "package", subject: "load Dawn", reason: String(error) }),
  }).pipe(Effect.flatMap((gpu) => open("dawn", gpu))),
);

/** The layers by the names of their backends. */
export const layers: Readonly<Record<Backend, Layer.Layer<Gpu, GpuError>>> = { native, dawn };
