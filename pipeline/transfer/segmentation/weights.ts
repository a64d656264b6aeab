/** Segmentors in files of weights: what a fine-tuning run starts from, and whole ones that are evaluated. */
import { Effect, type Scope } from "effect";
import type { FormatError } from "../../../data/files/format_error.ts";
import { type StoredTensor, widened } from "../../../data/formats/file_tensor.ts";
import { sameShape } from "../../../ops/graph/shape.ts";
import type { StateBuilder } from "../../model/state_builder.ts";
import { CheckpointError } from "../../run/checkpoint_file.ts";
import { initialState } from "../../run/initial_state.ts";
import { expectFiniteValues } from "../../run/resume.ts";
import { checkpointShapes, type StateTensor, type StateValues } from "../../run/state_layout.ts";
import { wholeEncoderOf } from "../../weights/encoder.ts";
import { isSegmentor, openWeights, type WeightsFile } from "../../weights/weights_file.ts";

/** The values that a fine-tuning run starts from, and what the user should know about them. */
export interface SegmentorStart {
  /** All state of the run. */
  readonly values: StateValues;
  /** Sentences. */
  readonly notes: readonly string[];
}

/**
 * Initial values of the seed, but for the weights in a file of any format: an encoder fills `backbone.` (the teacher's of
 * a pretraining run, running statistics included), a whole segmentor its heads, too, where they have the run's shapes.
 * "none" stands for no file. Fails with a `FormatError` where the file cannot be read or has no whole encoder, with a
 * `CheckpointError` where the encoder is of another architecture or has values that are not finite.
 */
export const segmentorStart: (
  file: string,
  state: StateBuilder,
  seed: number,
) => Effect.Effect<SegmentorStart, FormatError | CheckpointError> = Effect.fn("segmentorStart")(
  function* (
    file,
    state,
    seed,
  ): Effect.fn.Return<SegmentorStart, FormatError | CheckpointError, Scope.Scope> {
    const initial = initialState(state, seed);
    if (file === "none") return { values: initial, notes: [] };
    const weights = yield* openWeights(file);
    const backbone = yield* backboneFor(weights, state);
    const heads = headsFor(weights, state);
    const taken = new Map<string, StateTensor>();
    for (const [name, { dtype, shape, values }] of [...backbone.tensors, ...heads.tensors]) {
      taken.set(name, { shape, data: widened(dtype, yield* values) });
    }
    yield* expectFiniteValues(file, "start from", taken);
    const modules = [...new Set([...taken.keys()].map((name) => name.split(".", 1)[0]))].join(", ");
    return {
      values: new Map([...initial, ...taken]),
      notes: [`Weights from "${file}": ${modules}`, ...backbone.notes, ...heads.notes],
    };
  },
  Effect.scoped,
);

/** Tensors of a file under the names that they have in the run. */
interface Fitting {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly notes: readonly string[];
}

const BACKBONE = "backbone.";

const isCounter = (name: string) => name.endsWith("num_batches_tracked");

/** The encoder in a file, if it is the run's. Detectron2's files have no counters of batches, which change nothing. */
const backboneFor = Effect.fnUntraced(function* (
  weights: WeightsFile,
  state: StateBuilder,
): Effect.fn.Return<Fitting, FormatError | CheckpointError> {
  const isStudentAlone = weights.content.kind !== "encoder" && !isSegmentor(weights) &&
    ![...weights.tensors.keys()].some((name) => name.startsWith("encoder_k."));
  const { tensors, options } = yield* wholeEncoderOf(weights, isStudentAlone ? "student" : "teacher");
  const wanted = [...checkpointShapes(state)].filter(([name]) => name.startsWith(BACKBONE));
  const found = new Map([...tensors].map(([name, tensor]) => [BACKBONE + name, tensor]));
  const hasCounters = [...found.keys()].some(isCounter);
  const problems = [
    ...wanted.filter(([name]) => hasCounters || !isCounter(name)).flatMap(([name, shape]) => {
      const own = found.get(name)?.shape;
      if (own === undefined) return [`it has no ${name.slice(BACKBONE.length)}`];
      return sameShape(own, shape)
        ? []
        : [`${name.slice(BACKBONE.length)} is [${own.join(", ")}], not [${shape.join(", ")}]`];
    }),
    ...[...found.keys()].filter((name) => !wanted.some(([other]) => other === name))
      .map((name) => `it has ${name.slice(BACKBONE.length)}, too`),
  ];
  if (problems.length > 0) {
    const more = problems.length > 3 ? ` and ${problems.length - 3} more` : "";
    return yield* new CheckpointError({
      subject: weights.file,
      action: "start from",
      reason:
        `its encoder, ${options.arch} with ${options.width} channels behind the stem, is not this run's ` +
        `(--arch, --width): ${problems.slice(0, 3).join("; ")}${more}`,
    });
  }
  return {
    tensors: found,
    notes: isStudentAlone ? ["It has no teacher: its student's encoder is taken"] : [],
  };
});

/**
 * The heads of a segmentor that fit the run's. A classifier of other classes starts anew, and so does a head with other
 * layers.
 */
const headsFor = (weights: WeightsFile, state: StateBuilder): Fitting => {
  if (!isSegmentor(weights)) return { tensors: new Map(), notes: [] };
  const { tensors } = weights;
  const wanted = [...checkpointShapes(state)];
  const taken = new Map<string, StoredTensor>();
  const notes: string[] = [];
  for (const head of ["decode_head", "auxiliary_head"]) {
    const isOwn = (name: string) => name.startsWith(`${head}.`);
    const isClassifier = (name: string) => name.startsWith(`${head}.conv_seg.`);
    const own = wanted.filter(([name]) => isOwn(name));
    const fits = ([name, shape]: readonly [string, readonly number[]]) =>
      sameShape(tensors.get(name)?.shape ?? [NaN], shape);
    const layers = own.filter(([name]) => !isClassifier(name));
    const classifier = own.filter(([name]) => isClassifier(name));
    if (own.length === 0) continue;
    const others = [...tensors.keys()].filter(isOwn).length;
    if (others !== own.length || !layers.every(fits)) {
      const difference = others === 0 ? "the file has none" : "the file's has other layers";
      notes.push(`${head} starts anew: ${difference}`);
      continue;
    }
    if (!classifier.every(fits)) {
      const classes = (shape?: readonly number[]) => shape?.[0];
      const [name, shape] = classifier[0];
      notes.push(
        `The classifier of ${head} starts anew: the file's has ${
          classes(tensors.get(name)?.shape)
        } classes, this run ` +
          `${classes(shape)}`,
      );
    }
    for (const [name] of classifier.every(fits) ? own : layers) taken.set(name, tensors.get(name)!);
  }
  return { tensors: taken, notes };
};
