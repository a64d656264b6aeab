/** Initial values of training steps, which contenders without this project's random numbers can have as well. */
import type { StateBuilder } from "../../pipeline/model/state_builder.ts";
import { checkpointShapes, type StateValues } from "../../pipeline/run/state_layout.ts";
import { numbers, seedOf, sizeOf } from "./cases.ts";

/**
 * Noise of the deviations that the models ask for; but all norms start with the scale 1, also those that a run starts
 * with 0, and classifiers of pixels with a larger deviation than 0.01, so that the first losses depend on every weight.
 */
export const initialValues = (state: StateBuilder): StateValues => {
  const values = [...checkpointShapes(state)].map(([name, shape]) => {
    const init = state.declared.get(name)?.init; // running statistics have other names
    const isOne = shape.length === 1 && /^(?!optimizer).*\.(weight|running_var)$/.test(name);
    const data = init === undefined || init.kind === "constant"
      ? new Float32Array(sizeOf(shape)).fill(isOne ? 1 : 0)
      : numbers(shape, seedOf(studentName(name)), Math.sqrt(3) * (isClassifier(name) ? 0.1 : init.deviation));
    return [name, { shape, data }] as const;
  });
  return new Map(values);
};

const studentName = (name: string) => name.replace(/^(\w+)_k\./, "$1_q.");
const isClassifier = (name: string) => name.endsWith("conv_seg.weight");
