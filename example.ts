import { Effect } from "effect";
import * as slotcon from "./mod.ts";
import { add, mean, mul, sub } from "./mod.ts";

// An op of our own: a WGSL expression and its derivative. It is fused with its neighbours like any other.
const absolute = slotcon.defineElementwise("absolute", ([x]) => `abs(${x})`, ({ inputs: [x], gradient }) => [
  mul(gradient, sub(mul(2, slotcon.greaterEqual(x, 0)), 1)),
]);

// A step of our own: views of less contrast, and a loss that also keeps the slots small.
const step: slotcon.StepBuilder = (views, rates, config) => {
  const dimmed = { ...views, images: mul(0.8, views.images) };
  const objective = slotcon.slotConLoss(dimmed, rates, config);
  const size = mean(absolute([objective.student.slots]));
  const loss = add(objective.loss, mul(0.01, size));
  const metrics = { ...objective.metrics, loss, slot_size: size };
  return slotcon.optimize({ ...objective, loss, metrics }, rates.learningRate, config);
};

const [dataDir, outputDir, steps] = Deno.args;
await Effect.gen(function* () {
  const demo = yield* slotcon.configure("demo");
  const config = { ...demo, dataset: "Folder" as const, dataDir, outputDir, steps: Number(steps) };
  yield* slotcon.pretrain(config, yield* slotcon.listImages(config), step);
}).pipe(Effect.provide(slotcon.native), Effect.runPromise);
