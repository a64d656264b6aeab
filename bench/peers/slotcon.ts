/** The whole SlotCon step as this project's contender does it; torch_slotcon.py is the same in PyTorch. */
import { Effect } from "effect";
import { constant } from "../../ops/graph/tensor.ts";
import { compile } from "../../ops/runtime/program.ts";
import type { StateBuilder } from "../../pipeline/model/state_builder.ts";
import { rateInputs, slotConStep, type Views } from "../../pipeline/pretrain/step.ts";
import { upload } from "../../pipeline/run/state.ts";
import { checkpointShapes, type StateValues } from "../../pipeline/run/state_layout.ts";
import { numbers, seedOf, sizeOf, type SlotConWork } from "./cases.ts";

/** A program whose outputs are the two losses, and what each run uploads. */
export const slotCon = Effect.fnUntraced(function* (work: SlotConWork) {
  const { state, metrics: { loss_group, loss_slot } } = slotConStep(viewsOf(work), rateInputs(), work);
  const graph = { label: "the step", updates: state.updates, outputs: { loss_group, loss_slot } };
  const program = yield* compile(graph, yield* upload(state, initialValues(state)));
  const { learningRate, teacherMomentum } = work;
  const uploads = {
    learningRate: Float32Array.of(learningRate),
    teacherMomentum: Float32Array.of(teacherMomentum),
  };
  return { program, uploads };
});

/** Pictures of noise; boxes from the upper left quarter of a view to its lower right one; about half of the views flipped. */
const viewsOf = ({ batchSize, imageSize }: SlotConWork): Views => {
  const views = 2 * batchSize, shape = [views, imageSize, imageSize, 3];
  const coords = numbers([views, 4], 2, 0.25).map((x, i) => x + (i % 4 < 2 ? 0.25 : 0.75));
  return {
    images: constant(numbers(shape, 1), shape),
    coords: constant(coords, [views, 4]),
    flips: constant(numbers([views], 3).map((x) => x > 0 ? 1 : 0)),
  };
};

/**
 * Noise of the deviations that the models ask for; but all norms start with the scale 1, also those that a run starts
 * with 0, so that the first losses depend on every weight.
 */
const initialValues = (state: StateBuilder): StateValues => {
  const values = [...checkpointShapes(state)].map(([name, shape]) => {
    const init = state.declared.get(name)?.init; // running statistics have other names
    const isOne = shape.length === 1 && /^(?!optimizer).*\.(weight|running_var)$/.test(name);
    const data = init === undefined || init.kind === "constant"
      ? new Float32Array(sizeOf(shape)).fill(isOne ? 1 : 0)
      : numbers(shape, seedOf(studentName(name)), init.deviation * Math.sqrt(3));
    return [name, { shape, data }] as const;
  });
  return new Map(values);
};

const studentName = (name: string) => name.replace(/^(\w+)_k\./, "$1_q.");
