/** The encoder in a file of weights: its tensors, its architecture, and its names in other tools. */
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { StoredTensor } from "../../data/formats/file_tensor.ts";
import { sameShape, ShapeError } from "../../ops/graph/shape.ts";
import { input } from "../../ops/graph/tensor.ts";
import { type ArchitectureName, ARCHITECTURES, encoder, type EncoderOptions } from "../model/resnet.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { checkpointShapes } from "../run/state_layout.ts";
import { encoderFacts, isSegmentor, type WeightsFile } from "./weights_file.ts";

/** One of the two networks of a pretraining run. */
export type Which = "teacher" | "student";

/**
 * An encoder's tensors under torchvision's names, in the order of its layers where the file is a checkpoint. A file
 * with one encoder, alone or in a segmentor, has no other. Fails with a `FormatError` where a run's file lacks this one.
 */
export const encoderOf: (
  weights: WeightsFile,
  which: Which,
) => Effect.Effect<ReadonlyMap<string, StoredTensor>, FormatError> = Effect.fnUntraced(
  function* (weights, which) {
    const { file, tensors, content } = weights;
    if (content.kind === "encoder") return tensors;
    const prefix = isSegmentor(weights) ? "backbone." : which === "teacher" ? "encoder_k." : "encoder_q.";
    const { arch, width, outputStride } = encoderFacts(weights);
    const names = arch !== null && width !== null
      ? Array.from(encoderShapes({ arch, width, outputStride }).keys(), (name) => `${prefix}${name}`)
      : [...tensors.keys()].filter((name) => name.startsWith(prefix));
    const found = new Map<string, StoredTensor>();
    for (const name of names) {
      const tensor = tensors.get(name);
      if (tensor !== undefined) found.set(name.slice(prefix.length), tensor);
    }
    if (found.size > 0) return found;
    if (isSegmentor(weights)) {
      return yield* new FormatError({ subject: file, reason: "its segmentor has no backbone" });
    }
    const other = which === "teacher" ? "student" : "teacher";
    return yield* new FormatError({
      subject: file,
      reason: `it has no ${which}'s encoder: try --which ${other}`,
    });
  },
);

/** An encoder that lacks nothing. */
export interface WholeEncoder {
  /** Its tensors under torchvision's names. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Its architecture. */
  readonly options: EncoderOptions;
}

/**
 * The encoder in a file as `encoderOf` and its architecture. Fails with a `FormatError` where a tensor is missing, of
 * another shape, or one too many: tools that read weights would fill the gap at random.
 */
export const wholeEncoderOf: (
  weights: WeightsFile,
  which: Which,
) => Effect.Effect<WholeEncoder, FormatError> = Effect
  .fnUntraced(function* (weights, which) {
    const tensors = yield* encoderOf(weights, which);
    const options = yield* architectureOf(weights, tensors);
    const differences = differencesTo(tensors, options) ?? [];
    if (differences.length === 0) return { tensors, options };
    const reason = `its encoder is no whole ${options.arch}: ${firstOf(differences)}`;
    return yield* new FormatError({ subject: weights.file, reason });
  });

/**
 * The architecture of an encoder: as its checkpoint says, or else the first whose names and shapes are those of its
 * tensors. Fails with a `FormatError` where there is none.
 */
export const architectureOf: (
  weights: WeightsFile,
  tensors: ReadonlyMap<string, StoredTensor>,
) => Effect.Effect<EncoderOptions, FormatError> = Effect.fnUntraced(function* (weights, tensors) {
  const { arch: said, width: saidWidth, outputStride } = encoderFacts(weights);
  if (said !== null && saidWidth !== null) return { arch: said, width: saidWidth, outputStride };
  const width = (tensors.get("conv1.weight") ?? tensors.get("conv1.6.weight"))?.shape[0] ?? 0;
  const all = Object.keys(ARCHITECTURES) as ArchitectureName[];
  let nearest: { readonly arch: string; readonly differences: readonly string[] } | null = null;
  for (const arch of said === null ? all : [said, ...all]) {
    const differences = differencesTo(tensors, { arch, width });
    if (differences === null) continue;
    if (differences.length === 0) return { arch, width };
    if (nearest === null || differences.length < nearest.differences.length) nearest = { arch, differences };
  }
  const near = nearest === null ? "" : `; nearest is ${nearest.arch}, but ${firstOf(nearest.differences)}`;
  const reason = `its encoder is of no known architecture (${all.join(", ")})${near}`;
  return yield* new FormatError({ subject: weights.file, reason });
});

/** The first three of some differences, and how many more there are. */
export const firstOf = (differences: readonly string[]): string =>
  differences.slice(0, 3).join("; ") + (differences.length > 3 ? `; and ${differences.length - 3} more` : "");

/** What of the tensors is not as in an architecture, in words; null where it cannot be of the width. */
const differencesTo = (
  tensors: ReadonlyMap<string, StoredTensor>,
  options: EncoderOptions,
): readonly string[] | null => {
  try {
    const shapes = encoderShapes(options);
    return shapeDifferences(
      new Map([...tensors].filter(([name]) => !isCounter(name) || shapes.has(name))),
      new Map([...shapes].filter(([name]) => !isCounter(name) || tensors.has(name))), // some files leave them out
    );
  } catch (error) {
    if (error instanceof ShapeError) return null; // an architecture that cannot be as narrow as this
    throw error;
  }
};

/** Whether a tensor counts batches, which changes nothing that a network computes. */
export const isCounter = (name: string): boolean => name.endsWith("num_batches_tracked");

/** What of the tensors `found` is not as wanted, in words: those that are missing or of another shape, and others. */
export const shapeDifferences = (
  found: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  wanted: ReadonlyMap<string, readonly number[]>,
): readonly string[] => [
  ...[...wanted].flatMap(([name, shape]) => {
    const own = found.get(name)?.shape;
    if (own === undefined) return [`it has no ${name}`];
    return sameShape(own, shape) ? [] : [`${name} is [${own.join(", ")}], not [${shape.join(", ")}]`];
  }),
  ...[...found.keys()].filter((name) => !wanted.has(name)).map((name) => `it has ${name}, too`),
];

/** The names and shapes of an encoder's tensors, in the order of its layers. Throws a `ShapeError`. */
const encoderShapes = (options: EncoderOptions): ReadonlyMap<string, readonly number[]> => {
  const state = new StateBuilder();
  encoder(student(state, null), input("images", [1, 64, 64, 3]), options);
  return checkpointShapes(state);
};

/** A name of torchvision's as detectron2's ResNet has it (docs/method.md, section 12, point 19). */
export const detectron2Name = (name: string): string =>
  (/^layer\d/.test(name) ? name : `stem.${name}`)
    .replace(/^layer(\d)/, (_, stage) => `res${Number(stage) + 1}`)
    .replace(/\bbn(\d)\./, "conv$1.norm.")
    .replace(/\bdownsample\.0\./, "shortcut.")
    .replace(/\bdownsample\.1\./, "shortcut.norm.");
