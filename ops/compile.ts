/**
 * Compiles a graph of tensors into a program for this device: lowers it (lower.ts), creates buffers, pipelines and bind
 * groups. Running the program is then only: upload, replay, read back.
 */
import { Effect } from "effect";
import { Gpu, type GpuError, mapped, STORAGE } from "./gpu.ts";
import { bytesOf } from "./kernel.ts";
import { type Graph, lower, overLimit, type PlanError } from "./lower.ts";
import type { MemoryPlan } from "./memory.ts";
import { type AdapterTraits, sizeOf, type Tensor } from "./tensor.ts";

/** Tensors that live on the device between runs, by the name of their input. */
export type DeviceState = ReadonlyMap<string, GPUBuffer>;

export type Upload = Float32Array | Uint32Array;

export interface Program {
  readonly plan: MemoryPlan;
  readonly dispatches: number;
  /**
   * Submits one run. The inner effect waits for its outputs: run it late, for waiting blocks the thread. At most
   * `IN_FLIGHT` runs may be unread.
   */
  readonly run: (
    uploads: Readonly<Record<string, Upload>>,
  ) => Effect.Effect<Effect.Effect<Readonly<Record<string, Float32Array>>, GpuError>, GpuError>;
  /** Milliseconds that each kernel takes on the device, in the order of their dispatch; needs timestamp-query. */
  readonly profile: (
    uploads: Readonly<Record<string, Upload>>,
  ) => Effect.Effect<readonly { readonly label: string; readonly milliseconds: number }[], GpuError>;
}

/** Runs that may be submitted before the outputs of the first are read. */
export const IN_FLIGHT = 2;

/**
 * Compiles `graph`; its buffers live as long as the scope. Inputs named in `state` are bound to the buffers there.
 * `traits` stand in for the adapter's own: tests try out what other adapters would get.
 */
export const compile = Effect.fn("compile")(function* (
  graph: Graph,
  state: DeviceState = new Map(),
  traits?: AdapterTraits,
) {
  const gpu = yield* Gpu;
  const { device, report } = gpu;
  const lowered = lower(graph, traits ?? gpu.traits, (name) => state.has(name));
  const { kernels, plan, operandOf, copies } = lowered;
  const refusal = overLimit(graph.label, lowered, report.limits);
  if (refusal !== null) return yield* refusal;

  // Memory: state is given; batch inputs and constants have their own buffers; the rest shares the plan's slots.
  const buffers = new Map<number, GPUBuffer>();
  const uploads = new Map<string, GPUBuffer>();
  for (const x of lowered.inputs) {
    const { name } = x.source as { name: string };
    const operand = operandOf(x);
    const buffer = state.get(name) ?? (yield* gpu.buffer(name, bytesOf(operand), STORAGE));
    buffers.set(operand.storage, buffer);
    if (!state.has(name)) uploads.set(name, buffer);
  }
  for (const x of lowered.constants) {
    const operand = operandOf(x);
    const buffer = yield* gpu.buffer("constant", bytesOf(operand), STORAGE);
    device.queue.writeBuffer(buffer, 0, (x.source as { data: Float32Array<ArrayBuffer> }).data);
    buffers.set(operand.storage, buffer);
  }
  for (const slot of plan.slots) {
    const buffer = yield* gpu.buffer(slot.names[0], slot.bytes, STORAGE | GPUBufferUsage.INDIRECT);
    for (const storage of slot.storages) buffers.set(storage, buffer);
  }

  // The sizes of all kernels lie in one uniform buffer.
  const alignment = device.limits.minUniformBufferOffsetAlignment;
  const stride = (bytes: number) => Math.ceil(bytes / alignment) * alignment;
  const sizeBytes = kernels.reduce((total, kernel) => total + stride(kernel.sizes?.byteLength ?? 0), 0);
  const sizes = new Uint8Array(Math.max(sizeBytes, 16));
  const sizeBuffer = yield* gpu.buffer(
    "sizes",
    sizes.length,
    GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  );

  const commands: Command[] = [];
  let at = 0;
  for (const kernel of kernels) {
    const pipeline = yield* gpu.pipeline(kernel.label, kernel.code);
    const entries: GPUBindGroupEntry[] = kernel.bindings.map(({ operand }, binding) => ({
      binding,
      resource: {
        buffer: buffers.get(operand.storage)!,
        offset: operand.offset * 4,
        size: bytesOf(operand),
      },
    }));
    if (kernel.sizes !== null) {
      sizes.set(new Uint8Array(kernel.sizes.buffer), at);
      entries.push({
        binding: entries.length,
        resource: { buffer: sizeBuffer, offset: at, size: kernel.sizes.byteLength },
      });
      at += stride(kernel.sizes.byteLength);
    }
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    commands.push({
      pipeline,
      group,
      workgroups: "indirect" in kernel.workgroups
        ? buffers.get(kernel.workgroups.indirect.storage)!
        : kernel.workgroups,
    });
  }
  device.queue.writeBuffer(sizeBuffer, 0, sizes);
  yield* gpu.check;

  // Outputs of the runs in flight, each in a buffer of its own.
  const outputs = Object.entries(graph.outputs).map(([name, x]) => ({ name, x, bytes: sizeOf(x.shape) * 4 }));
  const outputBytes = outputs.reduce((total, { bytes }) => total + bytes, 0);
  const ring: GPUBuffer[] = [];
  for (let i = 0; i <= IN_FLIGHT; i++) {
    ring.push(yield* gpu.buffer("outputs", outputBytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST));
  }
  let runs = 0;

  const fill = (values: Readonly<Record<string, Upload>>) => {
    for (const [name, buffer] of uploads) {
      device.queue.writeBuffer(buffer, 0, values[name] as Float32Array<ArrayBuffer>);
    }
  };
  const dispatch = (pass: GPUComputePassEncoder, { workgroups }: Command) => {
    if ("length" in workgroups) pass.dispatchWorkgroups(...workgroups);
    else pass.dispatchWorkgroupsIndirect(workgroups, 0);
  };

  /** Copies the next state into its place where the kernels have not written it there. */
  const moveOn = (encoder: GPUCommandEncoder) => {
    for (const { from, to } of copies) {
      const [source, target] = [from, to].map((x) => buffers.get(operandOf(x).storage)!);
      encoder.copyBufferToBuffer(source, 0, target, 0, bytesOf(operandOf(to)));
    }
  };

  const submit = (values: Readonly<Record<string, Upload>>, staging: GPUBuffer) => {
    fill(values);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    let current: GPUComputePipeline | null = null;
    for (const command of commands) {
      if (command.pipeline !== current) pass.setPipeline(current = command.pipeline);
      pass.setBindGroup(0, command.group);
      dispatch(pass, command);
    }
    pass.end();
    moveOn(encoder);
    let offset = 0;
    for (const { x, bytes } of outputs) {
      encoder.copyBufferToBuffer(buffers.get(operandOf(x).storage)!, 0, staging, offset, bytes);
      offset += bytes;
    }
    device.queue.submit([encoder.finish()]);
  };

  const collect = (staging: GPUBuffer) =>
    Effect.gen(function* () {
      yield* mapped(staging);
      yield* gpu.check;
      const data = staging.getMappedRange().slice(0);
      staging.unmap();
      let offset = 0;
      return Object.fromEntries(outputs.map(({ name, x, bytes }) => {
        const values = x.dtype === "f32"
          ? new Float32Array(data, offset, bytes / 4)
          : Float32Array.from(new Uint32Array(data, offset, bytes / 4));
        offset += bytes;
        return [name, values];
      }));
    });

  /** One pass a kernel, for only passes have timestamps; the state moves on as in a run. */
  const profile = Effect.fnUntraced(function* (values: Readonly<Record<string, Upload>>) {
    fill(values);
    const count = 2 * commands.length;
    const bytes = 8 * count;
    const times = yield* gpu.buffer(
      "timestamps",
      bytes,
      GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    );
    const encoder = device.createCommandEncoder();
    const sets: GPUQuerySet[] = [];
    commands.forEach((command, i) => {
      // A query set holds at most 4096 queries.
      if (i % 2048 === 0) {
        sets.push(device.createQuerySet({ type: "timestamp", count: Math.min(4096, count - 2 * i) }));
      }
      const first = 2 * (i % 2048);
      const querySet = sets[sets.length - 1];
      const pass = encoder.beginComputePass({
        timestampWrites: { querySet, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 },
      });
      pass.setPipeline(command.pipeline);
      pass.setBindGroup(0, command.group);
      dispatch(pass, command);
      pass.end();
    });
    moveOn(encoder);
    sets.forEach((set, i) =>
      encoder.resolveQuerySet(set, 0, Math.min(4096, count - 4096 * i), times, 8 * 4096 * i)
    );
    device.queue.submit([encoder.finish()]);
    const [data] = yield* Effect.flatten(gpu.read([{ buffer: times, bytes }]));
    sets.forEach((set) => set.destroy());
    const stamps = new BigUint64Array(data);
    return kernels.map(({ label }, i) => ({
      label,
      milliseconds: Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6,
    }));
  }, Effect.scoped);

  return {
    plan,
    dispatches: commands.length,
    profile,
    run: (values) =>
      Effect.suspend(() => {
        const missing = [...uploads.keys()].filter((name) => values[name] === undefined);
        if (missing.length > 0) {
          return Effect.die(new Error(`no value given for the inputs ${missing.join(", ")}`));
        }
        const staging = ring[runs++ % ring.length];
        submit(values, staging);
        return Effect.succeed(collect(staging));
      }),
  } satisfies Program as Program;
});

interface Command {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: readonly [number, number, number] | GPUBuffer;
}

/** Evaluates a tensor that depends on constants only: for tests and for looking around. */
export const evaluate = (x: Tensor): Effect.Effect<Float32Array, GpuError | PlanError, Gpu> =>
  Effect.scoped(Effect.gen(function* () {
    const program = yield* compile({ label: "evaluate", outputs: { x } });
    return (yield* yield* program.run({})).x;
  }));
