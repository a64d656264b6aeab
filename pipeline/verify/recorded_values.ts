/** The values of recorded tensors by name and shape. */
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import { sameShape, type Shape } from "../../ops/graph/shape.ts";

/** The values of a tensor, whatever its type. Fails with a `FormatError` where it is missing or has another shape. */
export type Values = (name: string, shape: Shape) => Effect.Effect<Float32Array, FormatError>;

/** The tensors of a recording; errors name `file`. */
export const recordedValues = ({ tensors }: TensorFile, file: string): Values => (name, shape) => {
  const refuse = (reason: string) => Effect.fail(new FormatError({ subject: file, reason }));
  const tensor = tensors.get(name);
  if (tensor === undefined) return refuse(`it has no tensor "${name}"`);
  if (!sameShape(tensor.shape, shape)) {
    const [needed, found] = [shape, tensor.shape].map((sizes) => `[${sizes.join(", ")}]`);
    return refuse(`"${name}" must be ${needed} by its config, it is ${found}`);
  }
  const { data } = tensor;
  return Effect.succeed(data instanceof Float32Array ? data : Float32Array.from(data, Number));
};
