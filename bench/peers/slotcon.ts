/** The whole SlotCon step as this project's contender does it; torch_slotcon.py is the same in PyTorch. */
import { Effect } from "effect";
import { constant } from "../../ops/graph/tensor.ts";
import { compile } from "../../ops/runtime/program.ts";
import { rateInputs, slotConStep, type Views } from "../../pipeline/pretrain/step.ts";
import { upload } from "../../pipeline/run/state.ts";
import { numbers, type SlotConWork } from "./cases.ts";
import { initialValues } from "./initial_values.ts";

/** A program whose outputs are the two losses, and what each run uploads. */
export const slotCon = Effect.fnUntraced(function* (work: SlotConWork) {
  const { state, metrics: { loss_group, loss_slot } } = slotConStep(viewsOf(work), rateInputs(), work);
  const graph = {
    label: "the step",
    updates: state.updates,
    outputs: { loss_group, loss_slot },
    stageOf: () => "step",
  };
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
