import { Effect } from "effect";
import { numbers } from "../ops/_test_kit.ts";
import { sizeOf } from "../ops/graph/shape.ts";
import { constant, input, inputName, type Tensor } from "../ops/graph/tensor.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { compile } from "../ops/runtime/program.ts";
import { encoder } from "../pipeline/model/resnet.ts";
import { student } from "../pipeline/model/slotcon_network.ts";
import { StateBuilder } from "../pipeline/model/state_builder.ts";
import { lars } from "../pipeline/optim/lars.ts";
import { bench } from "./_kit.ts";
import { assertSample, sampled } from "./_sample.ts";
import { runsOf } from "./_timing.ts";

const RATE = 0.1, DECAY = 1e-2, MOMENTUM = 0.9;

/** The parameters of a ResNet-50, as inputs of a graph. */
const parameters = () => {
  const state = new StateBuilder();
  encoder(student(state, null), input("images", [1, 224, 224, 3]), { arch: "resnet50", width: 64 });
  return [...state.declared.values()].filter(({ role }) => role === "trained");
};

// Norms read a parameter and its gradient; the update reads both and the velocity, and writes parameter and velocity.
const words = parameters().reduce((sum, { shape }) => sum + (shape.length > 1 ? 7 : 5) * sizeOf(shape), 0);

bench(
  "LARS, ResNet-50",
  { bytes: 4 * words },
  Effect.gen(function* () {
    const gpu = yield* Gpu;
    const buffers = new Map<string, GPUBuffer>();
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const noise = numbers(2 ** 16);
    /** A tensor on the device, filled with the same numbers over and over from the place `start` on. */
    const filled = Effect.fnUntraced(function* (x: Tensor, start: number) {
      const name = inputName(x);
      const values = new Float32Array(sizeOf(x.shape));
      for (let at = 0; at < values.length; at++) values[at] = noise[(start + at) % noise.length];
      const buffer = yield* gpu.buffer(name, values.byteLength, usage);
      gpu.device.queue.writeBuffer(buffer, 0, values);
      buffers.set(name, buffer);
      return values;
    });

    const updates = new Map<Tensor, Tensor>();
    const answers = [];
    for (const { name, tensor: parameter } of parameters()) {
      const gradient = input(`gradient of ${name}`, parameter.shape);
      const velocity = input(`velocity of ${name}`, parameter.shape);
      const next = lars(parameter, gradient, () => velocity, {
        rate: constant(RATE),
        weightDecay: DECAY,
        momentum: MOMENTUM,
      });
      updates.set(parameter, next.parameter).set(velocity, next.buffers.get(velocity)!);
      const p = yield* filled(parameter, 1), g = yield* filled(gradient, 2), v = yield* filled(velocity, 3);
      if (!["conv1.weight", "layer3.0.conv2.weight", "bn1.weight"].includes(name)) continue;

      const norm = (value: (at: number) => number) =>
        Math.sqrt(p.reduce((sum, _, at) => sum + value(at) ** 2, 0));
      const decayed = (at: number) => g[at] + DECAY * p[at];
      const ratio = 0.001 * norm((at) => p[at]) / norm(decayed);
      const scaled = (at: number) => parameter.shape.length > 1 ? ratio * decayed(at) : g[at];
      const expected = (at: number) => p[at] - RATE * (MOMENTUM * v[at] + scaled(at));
      answers.push({ name, result: next.parameter, expected });
    }
    const outputs = Object.fromEntries(answers.map(({ name, result }) => [name, sampled(result)]));
    const program = yield* compile({ label: "LARS", updates, outputs }, buffers);
    const got = yield* Effect.flatten(program.run({}));
    for (const answer of answers) assertSample(answer.name, got[answer.name], answer);
    return runsOf(program);
  }),
);
