import assert from "node:assert/strict";
import { Effect } from "effect";
import { readSafetensors } from "../../data/formats/safetensors.ts";
import { gpuTest, numbers } from "../../ops/_test_kit.ts";
import type { Shape } from "../../ops/graph/shape.ts";
import { input } from "../../ops/graph/tensor.ts";
import { compile } from "../../ops/runtime/program.ts";
import { transpose } from "../../ops/slice.ts";
import { SCALER } from "../optim/loss_scale.ts";
import { initialState } from "../run/initial_state.ts";
import { upload } from "../run/state.ts";
import { checkpointShapes } from "../run/state_layout.ts";
import { readStepRecording, recordedOptions } from "../verify/read_step_recording.ts";
import { rateInputs, slotConStep } from "./step.ts";

/** Gradients of a recorded step, by the part of the network, with each value of its pictures moved by up to `noise` of it. */
const recordedGradients = Effect.fnUntraced(
  function* (name: string, precision: "f32" | "f16", noise = 0) {
    const file = Deno.readFileSync(new URL(`../../testdata/steps/${name}.safetensors`, import.meta.url));
    const { config, values } = yield* readStepRecording(yield* readSafetensors(file, name), name);
    const [views, S] = [2 * config.batch, config.image_size];
    const both = Effect.fnUntraced(function* (what: string, shape: Shape) {
      const parts = yield* Effect.all(
        [0, 1].map((view) => values(`step0/rank0/${what}${view}`, [config.batch, ...shape])),
      );
      return Float32Array.from(parts.flatMap((part) => [...part]));
    });
    const step = slotConStep(
      {
        images: transpose(input("crops", [views, 3, S, S]), [0, 2, 3, 1]),
        coords: input("coords", [views, 4]),
        flips: input("flips", [views]),
      },
      rateInputs(),
      { ...recordedOptions(config), precision },
    );
    const start = new Map(initialState(step.state, 0));
    for (const [tensor, shape] of checkpointShapes(step.state)) {
      if (!/^(optimizer|scaler)\./.test(tensor)) {
        start.set(tensor, { shape, data: yield* values(`init/${tensor}`, shape) });
      }
    }
    start.set(SCALER.scale, { shape: [], data: Float32Array.of(1024) }); // networks as small as these overflow sooner
    const outputs = Object.fromEntries(step.gradients);
    const program = yield* compile(
      { label: name, updates: step.state.updates, outputs, precision },
      yield* upload(step.state, start),
    );
    const crops = yield* both("crops", [3, S, S]);
    const shift = numbers(crops.length);
    const found = yield* Effect.flatten(program.run({
      crops: crops.map((value, i) => value * (1 + noise * shift[i])),
      coords: yield* both("coords", [4]),
      flips: yield* both("flags", []),
      learningRate: Float32Array.of(0.1),
      teacherMomentum: Float32Array.of(0.99),
    }));
    return Map.groupBy(Object.entries(found), ([tensor]) => tensor.match(/^encoder_q\.\w+|^\w+/)![0]);
  },
);

type Gradients = Effect.Success<ReturnType<typeof recordedGradients>>;

/** ‖a − b‖ / ‖b‖ of each part. */
const apart = (a: Gradients, b: Gradients): Map<string, number> =>
  new Map(Array.from(b, ([part, tensors]) => {
    const other = new Map(a.get(part));
    let [difference, norm] = [0, 0];
    for (const [name, values] of tensors) {
      values.forEach((value, i) => {
        difference += (other.get(name)![i] - value) ** 2;
        norm += value ** 2;
      });
    }
    return [part, Math.sqrt(difference / norm)];
  }));

for (const name of ["resnet18_lars_first", "resnet50_sgd_first"]) {
  gpuTest(
    `half precision moves the gradients of ${name} as much as a last bit of f16 does in its pictures`,
    function* () {
      const full = yield* recordedGradients(name, "f32");
      const half = apart(yield* recordedGradients(name, "f16"), full);
      const lastBit = apart(yield* recordedGradients(name, "f32", 2 ** -10), full);
      assert.equal(half.size, 9);
      for (const [part, error] of half) {
        // The first convolution's gradient is a small difference of large sums: behind a batch norm, gradients sum to 0.
        const times = part === "encoder_q.conv1" ? 5 : 2;
        const most = times * lastBit.get(part)!;
        assert.ok(
          error <= most && error > 1e-4,
          `${part}: off by ${error}, by a last bit ${lastBit.get(part)}`,
        );
      }
    },
  );
}
