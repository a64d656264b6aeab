/** Segmentors in files of weights: what a fine-tuning run starts from, and whole ones that are evaluated. */
import { Effect, Schema, type Scope } from "effect";
import { FormatError } from "../../../data/files/format_error.ts";
import { classColor } from "../../../data/datasets/segmentation/class_file.ts";
import { publishedClasses } from "../../../data/datasets/segmentation/published.ts";
import type { SegmentationClass } from "../../../data/datasets/segmentation/segmentation_set.ts";
import type { StoredTensor } from "../../../data/formats/file_tensor.ts";
import { sameShape } from "../../../ops/graph/shape.ts";
import { input } from "../../../ops/graph/tensor.ts";
import { student } from "../../model/slotcon_network.ts";
import { StateBuilder } from "../../model/state_builder.ts";
import { CheckpointError } from "../../run/checkpoint_file.ts";
import { initialState } from "../../run/initial_state.ts";
import { readState } from "../../run/state.ts";
import { checkpointShapes, type StateTensor, type StateValues } from "../../run/state_layout.ts";
import {
  architectureOf,
  encoderOf,
  firstOf,
  isCounter,
  shapeDifferences,
  wholeEncoderOf,
} from "../../weights/encoder.ts";
import { isSegmentor, openWeights, type SavedClasses, type WeightsFile } from "../../weights/weights_file.ts";
import { type RecipeName, SEGMENTATION_OPTIONS, type SegmentationConfig } from "./config.ts";
import { segmentor, type SegmentorOptions } from "./network.ts";
import { SEGMENTATION } from "./task.ts";

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
 * "none" stands for no file. Fails with a `FormatError` where the file cannot be read, has no whole encoder, or has values
 * that are not finite, with a `CheckpointError` where the encoder is of another architecture.
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
    const taken = yield* readState(file, new Map([...backbone.tensors, ...heads.tensors]));
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

/** The encoder in a file, if it is the run's. Detectron2's files have no counters of batches, which change nothing. */
const backboneFor = Effect.fnUntraced(function* (
  weights: WeightsFile,
  state: StateBuilder,
): Effect.fn.Return<Fitting, FormatError | CheckpointError> {
  const isStudentAlone = weights.content.kind !== "encoder" && !isSegmentor(weights) &&
    ![...weights.tensors.keys()].some((name) => name.startsWith("encoder_k."));
  const { tensors, options } = yield* wholeEncoderOf(weights, isStudentAlone ? "student" : "teacher");
  const hasCounters = [...tensors.keys()].some(isCounter);
  const wanted = [...checkpointShapes(state)].flatMap(([name, shape]) =>
    name.startsWith(BACKBONE) && (hasCounters || !isCounter(name))
      ? [[name.slice(BACKBONE.length), shape] as const]
      : []
  );
  const differences = shapeDifferences(tensors, new Map(wanted));
  if (differences.length > 0) {
    return yield* new CheckpointError({
      subject: weights.file,
      action: "start from",
      reason:
        `its encoder, ${options.arch} with ${options.width} channels behind the stem, is not this run's ` +
        `(--arch, --width): ${firstOf(differences)}`,
    });
  }
  const found = new Map([...tensors].map(([name, tensor]) => [BACKBONE + name, tensor]));
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

/** A segmentor in a file, ready to be evaluated. */
export interface SavedSegmentor {
  /** The options of its run; of a file of mmsegmentation's, those of a recipe with the network of the file. */
  readonly config: SegmentationConfig;
  /** Its classes, in the order of the logits. */
  readonly classes: readonly SegmentationClass[];
  /** All its values under their names, in mmsegmentation's order. */
  readonly values: StateValues;
  /** Sentences that the user should know, such as what was assumed. */
  readonly notes: readonly string[];
}

/**
 * The whole segmentor in a file. Files of mmsegmentation's say neither how images are normalised and resized, nor the
 * network's dilations: these are those of `recipe` or, where it is null, of the recipe that the tensors are most like. Fails
 * with a `FormatError` where the file has no segmentor, or a tensor is missing or of another shape than the others call for,
 * or with a `CheckpointError` where a checkpoint's description of its run is wrong.
 */
export const segmentorOf: (
  weights: WeightsFile,
  recipe: RecipeName | null,
) => Effect.Effect<SavedSegmentor, FormatError | CheckpointError> = Effect.fn("segmentorOf")(
  function* (weights, recipe) {
    const { file, tensors } = weights;
    if (!isSegmentor(weights)) {
      const reason = weights.leftOut.some((name) => /(^|\.)decode_head\./.test(name))
        ? "its decode_head is not fully convolutional: only such segmentors are known"
        : "it has no segmentor (no tensor decode_head.conv_seg.weight): slotcon transfer segmentation makes one of it";
      return yield* new FormatError({ subject: file, reason });
    }
    const { config, classes, notes } = yield* describedSegmentor(weights, recipe);
    const shapes = checkpointShapes(segmentorState(segmentorOptions(config, classes.length)));
    const own = new Map(
      [...tensors].filter(([name]) => /^(backbone|decode_head|auxiliary_head)\./.test(name)),
    );
    const differences = shapeDifferences(
      own,
      new Map([...shapes].filter(([name]) => !isCounter(name) || own.has(name))),
    );
    if (differences.length > 0) {
      return yield* new FormatError({
        subject: file,
        reason: `its segmentor is not whole: ${firstOf(differences)}`,
      });
    }
    const stored = yield* readState(file, new Map([...own].filter(([name]) => shapes.has(name))));
    const values = new Map<string, StateTensor>();
    for (const [name, shape] of shapes) {
      // Counters of batches do not matter in evaluation, and some files leave them out.
      values.set(name, stored.get(name) ?? { shape, data: new Float32Array(1) });
    }
    return { config, classes, values, notes };
  },
);

/** The network of a run with so many classes. */
export const segmentorOptions = (
  { arch, width, outputStride, headChannels, headDilation, ...others }: SegmentationConfig,
  classes: number,
): SegmentorOptions => {
  const { concatInput, auxiliaryWeight, auxiliaryChannels } = others;
  return {
    ...{ classes, arch, width, outputStride, headChannels, headDilation },
    ...{ concatInput, auxiliaryWeight, auxiliaryChannels },
  };
};

/** The state of a segmentor that is not trained any further. */
export const segmentorState = (options: SegmentorOptions): StateBuilder => {
  const state = new StateBuilder();
  segmentor(student(state, null), input("images", [1, 64, 64, 3]), options);
  return state;
};

/** What a segmentor's file says of it, and what is assumed, without its values. Fails as `segmentorOf` does. */
export const describedSegmentor: (
  weights: WeightsFile,
  recipe: RecipeName | null,
) => Effect.Effect<Omit<SavedSegmentor, "values">, FormatError | CheckpointError> = Effect.fnUntraced(
  function* (
    weights,
    recipe,
  ): Effect.fn.Return<Omit<SavedSegmentor, "values">, FormatError | CheckpointError> {
    const { file, tensors, content } = weights;
    if (content.kind === "checkpoint") {
      const { config, classes } = yield* Schema.decodeUnknownEffect(SEGMENTATION.meta)(content.meta).pipe(
        Effect.mapError(({ message }) =>
          new CheckpointError({
            subject: file,
            action: "load",
            reason: `its description of the run is wrong: ${message}`,
          })
        ),
      );
      return { config, classes, notes: [] };
    }
    const size = (name: string) => tensors.get(name)?.shape[0] ?? 0;
    const classes = size("decode_head.conv_seg.weight");
    const concatInput = tensors.has("decode_head.conv_cat.conv.weight");
    const auxiliary = size("auxiliary_head.convs.0.conv.weight");
    const assumed = recipe ?? (concatInput ? "ade20k" : classes === 19 ? "cityscapes" : "voc");
    const { arch, width } = yield* architectureOf(weights, yield* encoderOf(weights, "teacher"));
    const config = {
      ...yield* Effect.orDie(SEGMENTATION_OPTIONS.configure(assumed)),
      ...{ arch, width, concatInput },
      headChannels: size("decode_head.convs.0.conv.weight"),
      ...auxiliary === 0
        ? { auxiliaryWeight: 0 }
        : { auxiliaryWeight: AUXILIARY_WEIGHT, auxiliaryChannels: auxiliary },
    };
    const saved = content.kind === "segmentor" ? content.classes : NOTHING_SAID;
    const notes = recipe === null
      ? [
        `The file does not say how its segmentor is shown pictures: taken to be as in the recipe ${assumed} (--recipe)`,
      ]
      : [];
    return { config, classes: classesFrom(saved, classes, publishedClasses(assumed)), notes };
  },
);

/** Any above 0: it matters to training alone. */
const AUXILIARY_WEIGHT = 0.4;
const NOTHING_SAID: SavedClasses = { names: null, colors: null };

/** Classes as a file says, else those of its recipe where it has as many, else numbered. */
const classesFrom = (
  { names, colors }: SavedClasses,
  count: number,
  published: readonly SegmentationClass[],
): readonly SegmentationClass[] => {
  const usual = published.length === count
    ? published
    : Array.from({ length: count }, (_, i) => ({ name: `class ${i}`, color: classColor(i) }));
  return usual.map(({ name, color }, i) => ({
    name: names?.length === count ? names[i] : name,
    color: colors?.length === count ? colors[i] : color,
  }));
};
