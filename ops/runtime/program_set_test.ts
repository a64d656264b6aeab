import assert from "node:assert/strict";
import { Effect, Exit, Scope } from "effect";
import { gpuTest, numbers } from "../_test_kit.ts";
import { add, mul, relu, sub } from "../arithmetic.ts";
import { gradients } from "../autodiff.ts";
import { batchMoments, batchNorm } from "../batch_norm.ts";
import type { Graph } from "../compiler/graph.ts";
import { conv2d } from "../conv2d.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";
import { constant, input, reshape, type Tensor } from "../graph/tensor.ts";
import { matmul } from "../matmul.ts";
import { sum } from "../reduce.ts";
import { slice } from "../slice.ts";
import { makeArena } from "./arena.ts";
import type { DeviceState, Upload } from "./buffers.ts";
import { Gpu, type GpuError, STORAGE } from "./gpu.ts";
import { compile, type Program } from "./program.ts";
import { type ProgramSet, programSet } from "./program_set.ts";

const PARAMETERS: Readonly<Record<string, Shape>> = {
  "conv1.weight": [3, 3, 3, 8],
  "conv2.weight": [3, 3, 8, 12],
  "norm.weight": [12],
  "norm.bias": [12],
  "head.weight": [12, 5],
};
const RUNNING: Shape = [1, 2, 12]; // mean and variance
const BATCH = 4;

/**
 * A step of training with momentum on images [4, S, S, 3]: convolutions, batch norm, a linear head and a squared loss.
 */
const trainingStep = (size: number): Graph => {
  const images = input("images", [BATCH, size, size, 3]);
  const targets = input("targets", [BATCH, 5]);
  const running = input("norm.running", RUNNING);
  const [w1, w2, scale, shift, head] = Object.entries(PARAMETERS).map(([name, shape]) => input(name, shape));
  const x = conv2d(relu(conv2d(images, w1, { stride: 2, pad: 1 })), w2, { pad: 1 });
  const pixels = size * size / 4;
  const rows = reshape(x, [1, BATCH * pixels, 12]);
  const moments = batchMoments(rows);
  const features = relu(batchNorm(rows, scale, shift, moments));
  const scores = reshape(matmul(features, head), [BATCH, pixels, 5]);
  const pooled = mul(
    1 / pixels,
    matmul(constant(new Float32Array(BATCH * pixels).fill(1), [BATCH, 1, pixels]), scores),
  );
  const error = sub(reshape(pooled, [BATCH, 5]), targets);
  const loss = sum(mul(error, error));

  const parameters = [w1, w2, scale, shift, head];
  const updates = new Map<Tensor, Tensor>([[running, add(mul(0.9, running), mul(0.1, moments.values))]]);
  gradients(loss, parameters).forEach((gradient, i) => {
    const parameter = parameters[i];
    const velocity = input(`velocity ${i}`, parameter.shape);
    const next = add(mul(0.9, velocity), gradient);
    updates.set(velocity, next).set(parameter, sub(parameter, mul(0.01, next)));
  });
  return {
    label: `the step of ${size} px`,
    updates,
    outputs: { loss, mean: slice(moments.values, 1, 0, 1) },
  };
};

/** A state of the step's own, and a way to read it. */
const initialState = Effect.fnUntraced(function* () {
  const gpu = yield* Gpu;
  const state = new Map<string, GPUBuffer>();
  const shapes: [string, Shape][] = [
    ...Object.entries(PARAMETERS),
    ["norm.running", RUNNING],
    ...Object.values(PARAMETERS).map((shape, i): [string, Shape] => [`velocity ${i}`, shape]),
  ];
  for (const [i, [name, shape]] of shapes.entries()) {
    const buffer = yield* gpu.buffer(name, 4 * sizeOf(shape), STORAGE);
    const values = name in PARAMETERS
      ? numbers(sizeOf(shape), i).map((x) => x / 2)
      : new Float32Array(sizeOf(shape));
    gpu.device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    state.set(name, buffer);
  }
  return state as DeviceState;
});

const bitsOf = Effect.fnUntraced(function* (state: DeviceState) {
  const gpu = yield* Gpu;
  const read = yield* yield* gpu.read([...state.values()].map((buffer) => ({ buffer, bytes: buffer.size })));
  return read.map((data) => [...new Uint32Array(data)]);
});

const batchOf = (size: number, step: number): Record<string, Upload> => ({
  images: numbers(BATCH * size * size * 3, 100 + step),
  targets: numbers(BATCH * 5, 200 + step),
});

/** Runs steps of these sizes, each read after the next one has been submitted; the outputs of all. */
const runSteps = Effect.fnUntraced(function* <E, R>(
  sizes: readonly number[],
  first: number,
  programOf: (size: number) => Effect.Effect<Program, E, R>,
) {
  const outputs: Record<string, number[]>[] = [];
  const read = Effect.fnUntraced(function* (run: Effect.Success<ReturnType<Program["run"]>>) {
    outputs.push(Object.fromEntries(Object.entries(yield* run).map(([name, x]) => [name, [...x]])));
  });
  let pending: Effect.Effect<void, GpuError> = Effect.void;
  for (const [i, size] of sizes.entries()) {
    const run = yield* (yield* programOf(size)).run(batchOf(size, first + i));
    yield* pending;
    pending = read(run);
  }
  yield* pending;
  return outputs;
});

/** The same steps by programs that share nothing but a state. */
const runApart = Effect.fnUntraced(function* (sizes: readonly number[]) {
  const state = yield* initialState();
  const programs = new Map<number, Program>();
  for (const size of new Set(sizes)) programs.set(size, yield* compile(trainingStep(size), state));
  const outputs = yield* runSteps(sizes, 0, (size) => Effect.succeed(programs.get(size)!));
  return { outputs, bits: yield* bitsOf(state), plans: [...programs.values()].map(({ plan }) => plan) };
});

const ofSet = (set: ProgramSet) => (size: number) => set.get(`${size}`, () => trainingStep(size));

/** A service that counts the bytes of buffers that are there, by what they are for. */
const counting = (gpu: Gpu) => {
  const bytes = { slots: 0, inputs: 0, rest: 0 };
  const kindOf = (label: string, usage: number): keyof typeof bytes =>
    (usage & GPUBufferUsage.INDIRECT) > 0
      ? "slots"
      : ["images", "targets"].includes(label)
      ? "inputs"
      : "rest";
  const buffer: Gpu["buffer"] = (label, size, usage) =>
    Effect.gen(function* () {
      const made = yield* gpu.buffer(label, size, usage);
      const kind = kindOf(label, usage);
      bytes[kind] += made.size;
      yield* Effect.addFinalizer(() => Effect.sync(() => bytes[kind] -= made.size));
      return made;
    });
  return { bytes, service: { ...gpu, buffer } };
};

const rounded = (bytes: number) => Math.ceil(bytes / 16) * 16;
const slotBytes = ({ plan }: Program) => plan.slots.reduce((total, { bytes }) => total + rounded(bytes), 0);
const inputBytes = (size: number) => rounded(4 * BATCH * size * size * 3) + rounded(4 * BATCH * 5);

const orders = {
  "the largest first": [32, 16, 24, 24, 16, 32, 16, 24],
  "the largest last": [16, 24, 16, 24, 16, 32, 24, 32],
};
for (const [order, sizes] of Object.entries(orders)) {
  gpuTest(`programs of a set give the bits of programs of their own, ${order}`, function* () {
    const state = yield* initialState();
    const set = yield* programSet(state, 3);
    const outputs = yield* runSteps(sizes, 0, ofSet(set));
    const apart = yield* runApart(sizes);
    assert.deepEqual(outputs, apart.outputs);
    assert.deepEqual(yield* bitsOf(state), apart.bits);
  });

  gpuTest(
    `programs of a set take the transient memory and batch inputs of the largest, ${order}`,
    function* () {
      const { bytes, service } = counting(yield* Gpu);
      yield* Effect.gen(function* () {
        const state = yield* initialState();
        const stateBytes = bytes.rest;
        const alone: { slots: number; rest: number }[] = [];
        for (const size of new Set(sizes)) {
          yield* Effect.scoped(Effect.gen(function* () {
            const program = yield* compile(trainingStep(size), state);
            assert.equal(bytes.slots, slotBytes(program)); // what a program of its own takes
            assert.equal(bytes.inputs, inputBytes(size));
            alone.push({ slots: bytes.slots, rest: bytes.rest - stateBytes });
          }));
          assert.deepEqual(bytes, { slots: 0, inputs: 0, rest: stateBytes });
        }

        const set = yield* programSet(state, 3);
        yield* runSteps(sizes, 0, ofSet(set));
        assert.equal(bytes.slots, Math.max(...alone.map(({ slots }) => slots)));
        assert.equal(bytes.inputs, inputBytes(Math.max(...sizes)));
        assert.equal(bytes.rest, stateBytes + alone.reduce((total, { rest }) => total + rest, 0));
      }).pipe(Effect.provideService(Gpu, service));
    },
  );
}

gpuTest(
  "a full set frees the program used longest ago, and compiles it again to the same bits",
  function* () {
    const { bytes, service } = counting(yield* Gpu);
    yield* Effect.gen(function* () {
      const sizes = [32, 16, 24, 16, 32, 16];
      const state = yield* initialState();
      const stateBytes = bytes.rest;
      const set = yield* programSet(state, 2);
      const outputs = yield* runSteps(sizes.slice(0, 4), 0, ofSet(set)); // 32 leaves while its run is unread
      assert.deepEqual(set.keys(), ["24", "16"]);
      yield* ofSet(set)(24); // whose placement in the arena may be that of the larger one until it is asked for
      const [slots, rest] = [bytes.slots, bytes.rest];
      const alone = yield* Effect.scoped(
        Effect.map(Effect.all([16, 24].map((size) => compile(trainingStep(size), state))), (programs) => ({
          largest: Math.max(...programs.map(slotBytes)),
          rest: bytes.rest - rest,
        })),
      );
      assert.equal(slots, alone.largest);
      assert.equal(rest - stateBytes, alone.rest);
      assert.equal(bytes.inputs, inputBytes(24));

      outputs.push(...yield* runSteps(sizes.slice(4), 4, ofSet(set)));
      assert.deepEqual(set.keys(), ["32", "16"]);
      const apart = yield* runApart(sizes);
      assert.deepEqual(outputs, apart.outputs);
      assert.deepEqual(yield* bitsOf(state), apart.bits);
    }).pipe(Effect.provideService(Gpu, service));
  },
);

gpuTest(
  "an arena's slots grow where a tensor fits into none of the largest program's, and shrink again",
  function* () {
    const { bytes, service } = counting(yield* Gpu);
    yield* Effect.gen(function* () {
      const arena = yield* makeArena;
      const demand = (...sizes: number[]) => ({
        kernels: [],
        inputs: new Map<string, number>(),
        plan: {
          slots: sizes.map((size, storage) => ({
            name: `${storage}`,
            bytes: size,
            allocations: [{ storage, offset: 0 }],
          })),
          transient: sizes.map((size, storage) => ({
            ...{ storage, name: `${storage}`, bytes: size, group: "activations" as const },
            ...{ first: 0, last: 0 },
          })),
        },
      });
      const two = yield* arena.join(demand(640, 640));
      const before = yield* two.placement;
      assert.equal(bytes.slots, 1280);
      assert.equal(yield* two.placement, before);

      const scope = yield* Scope.make();
      const one = yield* Scope.provide(arena.join(demand(1024)), scope);
      yield* one.placement;
      const moved = yield* two.placement;
      assert.equal(bytes.slots, 1024 + 640);
      assert.notEqual(moved.tensors.get(0)!.buffer, before.tensors.get(0)!.buffer);
      assert.equal(moved.tensors.get(1)!.buffer, before.tensors.get(1)!.buffer);
      yield* Scope.close(scope, Exit.void);
      yield* two.placement;
      assert.equal(bytes.slots, 1280);
    }).pipe(Effect.provideService(Gpu, service));
  },
);
