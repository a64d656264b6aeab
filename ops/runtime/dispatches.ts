/** Kernels made ready to be dispatched: pipelines, bind groups and sizes. */
import { Effect } from "effect";
import type { Kernel, Operand } from "../graph/kernel.ts";
import { Gpu } from "./gpu.ts";

export interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: readonly [number, number, number] | {
    readonly buffer: GPUBuffer;
    readonly offset: number;
  };
}

/** Where an operand lies, in bytes. */
interface Region {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** The commands of kernels, whose sizes all lie in one uniform buffer, until the scope ends. */
export const dispatchesOf = Effect.fnUntraced(function* (
  kernels: readonly Kernel[],
  regionOf: (operand: Operand) => Region,
) {
  const { device, buffer, pipeline: pipelineOf } = yield* Gpu;
  const alignment = device.limits.minUniformBufferOffsetAlignment;
  const stride = (bytes: number) => Math.ceil(bytes / alignment) * alignment;
  const sizeBytes = kernels.reduce((total, kernel) => total + stride(kernel.sizes?.byteLength ?? 0), 0);
  const sizes = new Uint8Array(Math.max(sizeBytes, 16));
  const sizeBuffer = yield* buffer("sizes", sizes.length, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);

  const commands: Dispatch[] = [];
  let at = 0;
  for (const kernel of kernels) {
    const pipeline = yield* pipelineOf(kernel.label, kernel.code);
    const entries: GPUBindGroupEntry[] = kernel.bindings.map(({ operand }, binding) => ({
      binding,
      resource: regionOf(operand),
    }));
    if (kernel.sizes !== null) {
      sizes.set(new Uint8Array(kernel.sizes.buffer), at);
      entries.push({
        binding: entries.length,
        resource: { buffer: sizeBuffer, offset: at, size: kernel.sizes.byteLength },
      });
      at += stride(kernel.sizes.byteLength);
    }
    const { workgroups } = kernel;
    commands.push({
      pipeline,
      group: device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
      workgroups: "indirect" in workgroups ? regionOf(workgroups.indirect) : workgroups,
    });
  }
  device.queue.writeBuffer(sizeBuffer, 0, sizes);
  return commands;
});

export const encodeDispatches = (pass: GPUComputePassEncoder, commands: readonly Dispatch[]): void => {
  let current: GPUComputePipeline | null = null;
  for (const { pipeline, group, workgroups } of commands) {
    if (pipeline !== current) pass.setPipeline(current = pipeline);
    pass.setBindGroup(0, group);
    if ("length" in workgroups) pass.dispatchWorkgroups(...workgroups);
    else pass.dispatchWorkgroupsIndirect(workgroups.buffer, workgroups.offset);
  }
};
