/** Where a device comes from: Deno's own WebGPU, or Dawn. */
import { Effect, Layer } from "effect";
import type { Backend } from "../graph/lowering.ts";
import { Gpu, GpuError, service, type Wgpu } from "./gpu.ts";

/** The limits that programs make use of: the defaults are small, so the adapter's own are asked for. */
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

const open = (backend: Backend, gpu: GPU | undefined) =>
  Effect.gen(function* () {
    const failed = (reason: string) =>
      new GpuError({
        during: `use the GPU (${backend})`,
        reason,
        remedy:
          "Install a Vulkan, Metal or DirectX 12 driver, or Mesa's software driver (Debian: mesa-vulkan-drivers)",
      });
    if (gpu === undefined) return yield* failed("this runtime has no WebGPU");
    const adapter = yield* Effect.tryPromise({
      try: () => gpu.requestAdapter({ powerPreference: "high-performance" }),
      catch: (error) => failed(String(error)),
    });
    if (adapter === null) return yield* failed("no adapter was found");
    const limits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
    const requiredFeatures = OPTIONAL_FEATURES.filter((feature) => adapter.features.has(feature));
    const device = yield* Effect.acquireRelease(
      Effect.tryPromise({
        try: () => adapter.requestDevice({ requiredLimits: limits, requiredFeatures }),
        catch: (error) => failed(String(error)),
      }),
      (device) => Effect.sync(() => device.destroy()),
    );
    return yield* service(backend, gpu as Wgpu, adapter, device);
  });

/** Deno's own WebGPU. */
export const native: Layer.Layer<Gpu, GpuError> = Layer.effect(
  Gpu,
  Effect.suspend(() => open("native", navigator.gpu)),
);

const { setImmediate: schedule } = globalThis;
let asked = 0; // in the wait that goes on

/**
 * Dawn waits for the device by asking whether it is ready whenever the event loop comes round, each time by a new function:
 * some 100,000 a second. They take a core, and Deno stops for seconds to minutes when they are collected as garbage. So in
 * a wait of more than about a millisecond it asks once a millisecond.
 */
const scheduleSparingly = ((f: (...args: unknown[]) => void, ...args: unknown[]) => {
  if (!/\[native code\]/.test(Function.prototype.toString.call(f))) return schedule(f, ...args);
  const ask = () => {
    const before = asked;
    f();
    if (asked === before) asked = 0; // the wait is over
  };
  return ++asked < 100 ? schedule(ask) : setTimeout(ask, 1);
}) as typeof schedule;

/** Dawn, Chromium's WebGPU, from the npm package `webgpu`: faster readback, needs --allow-ffi. */
export const dawn: Layer.Layer<Gpu, GpuError> = Layer.effect(
  Gpu,
  Effect.tryPromise({
    try: async () => {
      const { create, globals } = await import("webgpu");
      Object.assign(globalThis, globals, { setImmediate: scheduleSparingly });
      return create(["disable-dawn-features=timestamp_quantization"]); // would round times to 65 µs
    },
    catch: (error) =>
      new GpuError({
        during: "load Dawn",
        reason: String(error),
        remedy: "Use --device native, or install the npm package webgpu for this platform",
      }),
  }).pipe(Effect.flatMap((gpu) => open("dawn", gpu))),
);

export const layers = { native, dawn };
