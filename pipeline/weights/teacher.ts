/** The teacher in a file of weights, whole: encoder, projector and prototypes. */
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { StoredTensor } from "../../data/formats/file_tensor.ts";
import { sameShape, type Shape } from "../../ops/graph/shape.ts";
import { input } from "../../ops/graph/tensor.ts";
import { forward, type ModelOptions, student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { readState } from "../run/state.ts";
import { checkpointShapes, type StateTensor, type StateValues } from "../run/state_layout.ts";
import { architectureOf, encoderOf } from "./encoder.ts";
import { encoderFacts, type WeightsFile } from "./weights_file.ts";

/** The architecture of a teacher. */
export interface TeacherOptions extends ModelOptions {
  /** Side of the square views that it was trained on, in pixels. */
  readonly imageSize: number;
}

/** A teacher and its architecture. */
export interface Teacher {
  /** Its architecture. */
  readonly model: TeacherOptions;
  /** Its values under their checkpoint names, `encoder_k.conv1.weight`. */
  readonly values: StateValues;
}

/**
 * Reads the teacher from a checkpoint of this project, of the published code, or from the networks of a run. Fails
 * with a `FormatError` where the file has an encoder alone, or a tensor is missing, of another shape than the others
 * call for, or not finite.
 */
export const teacherOf: (weights: WeightsFile) => Effect.Effect<Teacher, FormatError> = Effect.fn(
  "teacherOf",
)(
  function* (weights) {
    const { file, tensors, content } = weights;
    const refuse = (reason: string) => new FormatError({ subject: file, reason });
    if (content.kind === "encoder") {
      return yield* refuse("it holds an encoder alone; expected a checkpoint of a run, which has prototypes");
    }
    const own = new Map([...tensors].filter(([name]) => /^(encoder|projector|grouping)_k\./.test(name)));
    if (own.size === 0) return yield* refuse("it has no teacher (no tensor encoder_k.conv1.weight)");

    const encoder = yield* architectureOf(weights, yield* encoderOf(weights, "teacher"));
    const rows = (name: string) => {
      const size = own.get(name)?.shape[0];
      return size === undefined ? Effect.fail(refuse(`it has no tensor ${name}`)) : Effect.succeed(size);
    };
    const model: TeacherOptions = {
      arch: encoder.arch,
      width: encoder.width,
      outputStride: encoder.outputStride,
      imageSize: imageSizeOf(weights),
      dimHidden: yield* rows("projector_k.mlp.0.weight"),
      dimOut: yield* rows("projector_k.mlp.6.weight"),
      numPrototypes: yield* rows("grouping_k.slot_embed.weight"),
    };
    return { model, values: yield* wholeState(file, own, model, refuse) };
  },
);

/** Side of the published runs' square views, in pixels. */
const PUBLISHED_IMAGE_SIZE = 224;

/**
 * Side of the square views that a network was trained on, in pixels; as in the published runs where its file does not
 * say.
 */
export const imageSizeOf = (weights: WeightsFile): number =>
  encoderFacts(weights).imageSize ?? PUBLISHED_IMAGE_SIZE;

/** The values of the tensors that the teacher needs, and of no others. */
const wholeState = Effect.fnUntraced(function* (
  file: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  model: TeacherOptions,
  refuse: (reason: string) => FormatError,
) {
  const state = new StateBuilder();
  forward(student(state, null), "k", input("images", [1, model.imageSize, model.imageSize, 3]), model);
  const needed = new Map<string, StoredTensor>();
  const counters = new Map<string, StateTensor>();
  for (const [name, shape] of checkpointShapes(state)) {
    const tensor = tensors.get(name);
    if (tensor !== undefined && sameShape(tensor.shape, shape)) needed.set(name, tensor);
    // Counters of batches do not matter in evaluation, and some files leave them out.
    else if (name.endsWith("num_batches_tracked")) counters.set(name, { shape, data: new Float32Array(1) });
    else {
      const found = tensor === undefined ? "it has no such tensor" : `it is ${inWords(tensor.shape)}`;
      return yield* refuse(`${name} must be ${inWords(shape)} by its other tensors: ${found}`);
    }
  }
  return new Map([...yield* readState(file, needed), ...counters]) as StateValues;
});

const inWords = (shape: Shape) => `[${shape.join(", ")}]`;
