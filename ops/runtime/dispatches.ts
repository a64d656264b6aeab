/** Kernels made ready to be dispatched: pipelines, bind groups and uniforms. */
import { Effect, type Scope } from "effect";
import type { Kernel, Operand } from "../graph/kernel.ts";
import { Gpu, type GpuError } from "./gpu.ts";
import type { Clock } from "./timestamps.ts";

/** One dispatch of a pipeline. */
export interface Dispatch {
  /** The compiled shader. */
  readonly pipeline: GPUComputePipeline;
  /** Its buffers. */
  readonly group: GPUBindGroup;
  /** The grid of workgroups, or the region that holds it. */
  readonly workgroups: readonly [number, number, number] | Region;
}

/** The bytes of a buffer that hold an operand. */
export interface Region {
  /** The buffer. */
  readonly buffer: GPUBuffer;
  /** Bytes before the operand. */
  readonly offset: number;
  /** Bytes of the operand. */
  readonly size: number;
}

/** Binds kernels to the regions of their operands. */
export type Bind = (regionOf: (operand: Operand) => Region) => readonly Dispatch[];

/**
 * Compiles the pipelines of kernels, and writes the sizes of all of them to one uniform buffer, which lives as long as
 * the scope. The result makes the bind groups: anew whenever operands have moved to other buffers. Fails with GpuError.
 */
export const dispatchesOf: (
  kernels: readonly Kernel[],
) => Effect.Effect<Bind, GpuError, Gpu | Scope.Scope> = Effect.fnUntraced(function* (kernels) {
  const { device, buffer, pipeline: pipelineOf } = yield* Gpu;
  const alignment = device.limits.minUniformBufferOffsetAlignment;
  const stride = (bytes: number) => Math.ceil(bytes / alignment) * alignment;
  const totalBytes = kernels.reduce((total, { sizes }) => total + stride(sizes?.byteLength ?? 0), 0);
  const uniforms = new Uint8Array(Math.max(totalBytes, 16));
  const uniformBuffer = yield* buffer(
    "sizes",
    uniforms.length,
    GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  );

  const prepared: { kernel: Kernel; pipeline: GPUComputePipeline; uniform: GPUBufferBinding | null }[] = [];
  let offset = 0;
  for (const kernel of kernels) {
    const pipeline = yield* pipelineOf(kernel.label, kernel.code);
    const { sizes } = kernel;
    const uniform = sizes && { buffer: uniformBuffer, offset, size: sizes.byteLength };
    if (sizes !== null) {
      uniforms.set(new Uint8Array(sizes.buffer), offset);
      offset += stride(sizes.byteLength);
    }
    prepared.push({ kernel, pipeline, uniform });
  }
  device.queue.writeBuffer(uniformBuffer, 0, uniforms);

  return (regionOf) =>
    prepared.map(({ kernel: { bindings, workgroups }, pipeline, uniform }): Dispatch => {
      const resources = bindings.map(({ operand }): GPUBufferBinding => regionOf(operand));
      if (uniform !== null) resources.push(uniform);
      const entries = resources.map((resource, binding) => ({ binding, resource }));
      return {
        pipeline,
        group: device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
        workgroups: "indirect" in workgroups ? regionOf(workgroups.indirect) : workgroups,
      };
    });
});

/** Encodes dispatches into a pass, in their order. */
export const encodeDispatches = (pass: GPUComputePassEncoder, dispatches: readonly Dispatch[]): void => {
  let current: GPUComputePipeline | null = null;
  for (const { pipeline, group, workgroups } of dispatches) {
    if (pipeline !== current) pass.setPipeline(current = pipeline);
    pass.setBindGroup(0, group);
    if ("length" in workgroups) pass.dispatchWorkgroups(...workgroups);
    else pass.dispatchWorkgroupsIndirect(workgroups.buffer, workgroups.offset);
  }
};

/**
 * Encodes the dispatches from `begin` to `end` (exclusive): in one pass, or, with a clock, in a pass for each of its
 * spans that begins there.
 */
export const encodePasses = (
  encoder: GPUCommandEncoder,
  dispatches: readonly Dispatch[],
  begin: number,
  end: number,
  clock: Clock | null,
): void => {
  const whole = [{ first: begin, end, timestampWrites: undefined }];
  for (const span of clock?.spans.filter(({ first }) => begin <= first && first < end) ?? whole) {
    const pass = encoder.beginComputePass({ timestampWrites: span.timestampWrites });
    encodeDispatches(pass, dispatches.slice(span.first, span.end));
    pass.end();
  }
};
