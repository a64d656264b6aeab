import { reshape, storageOf, type Tensor } from "../ops/graph/tensor.ts";

/** The gradients of the inputs of the op that made y, from the gradient of y: its backward pass alone. */
export const pulledBack = (y: Tensor, gradient: Tensor): readonly (Tensor | null)[] => {
  const output = storageOf(y);
  if (output.source.kind !== "op") throw new Error("only what comes from an op has a backward pass");
  const { op, inputs, attributes } = output.source;
  return op.backward!({ inputs, output, gradient: reshape(gradient, output.shape), attributes });
};
