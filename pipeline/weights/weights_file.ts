/** Files of weights, whoever wrote them. A file is recognised by its content, whatever its name. */
import { Effect, type Scope } from "effect";
import { match } from "ts-pattern";
import { type ByteSource, openBytes } from "../../data/files/byte_source.ts";
import { FormatError } from "../../data/files/format_error.ts";
import type { StoredTensor } from "../../data/formats/file_tensor.ts";
import { openSafetensors } from "../../data/formats/safetensors.ts";
import { openTorch } from "../../data/formats/torch/read.ts";
import { isStoredTensor, type TorchValue } from "../../data/formats/torch/stored_tensor.ts";
import { type ArchitectureName, ARCHITECTURES, type OutputStride } from "../model/resnet.ts";
import { type CheckpointError, openCheckpoint, type RunMeta } from "../run/checkpoint_file.ts";
import { findNetworks, tensorsWithin } from "./find_networks.ts";
import { argument, integerIn, isPublished, type Published, readPublished } from "./published_file.ts";

/** A file of weights that is open. */
export interface WeightsFile {
  /** Its path. */
  readonly file: string;
  /** The kind of file, as text: "safetensors", "PyTorch zip". */
  readonly container: string;
  /**
   * The tensors by name: those of a run, `encoder_k.conv1.weight` and `optimizer.encoder_q.conv1.weight`, those of a
   * segmentor, `backbone.conv1.weight`, or those of an encoder alone, under torchvision's names.
   */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** The names of the file's other tensors, which are not read: heads, queues of keys; none in a checkpoint of a run. */
  readonly leftOut: readonly string[];
  /** What they are. */
  readonly content: Content;
}

/** What a file of weights holds. */
export type Content =
  /** A checkpoint of this project, and the name of the task that wrote it. */
  | { readonly kind: "checkpoint"; readonly task: string; readonly meta: RunMeta }
  /** A full checkpoint of the published code. */
  | { readonly kind: "published"; readonly published: Published }
  /** Student, teacher or both, without a run. */
  | { readonly kind: "networks" }
  /** A fully convolutional segmentor of mmsegmentation's, and what the file says of its classes. */
  | { readonly kind: "segmentor"; readonly classes: SavedClasses }
  /** An encoder alone. */
  | { readonly kind: "encoder" };

/** What a file says of the classes that a network tells apart, in the order of its scores. */
export interface SavedClasses {
  /** Their names; null where it does not say. */
  readonly names: readonly string[] | null;
  /** Red, green and blue of each, 0 … 255; null where it does not say. */
  readonly colors: readonly (readonly [number, number, number])[] | null;
}

/** What a file says of the encoder in it and of its training, besides names and shapes; null where it does not say. */
export interface EncoderFacts {
  /** The architecture. */
  readonly arch: ArchitectureName | null;
  /** Channels behind the stem. */
  readonly width: number | null;
  /** Input pixels per pixel of the feature map; null also for the architecture's own. */
  readonly outputStride: OutputStride | null;
  /** Side of the square views that the encoder was trained on, in pixels. */
  readonly imageSize: number | null;
}

const READABLE =
  "readable are checkpoints of this project, PyTorch files (.pth), pickles of arrays (detectron2's .pkl) and safetensors";

/**
 * Opens a file of weights until the scope ends. Values are read when they are asked for. Fails with a `FormatError`,
 * or with a `CheckpointError` for a damaged checkpoint of this project, that says what is wrong with the file.
 */
export const openWeights: (
  file: string,
) => Effect.Effect<WeightsFile, FormatError | CheckpointError, Scope.Scope> = Effect.fn("openWeights")(
  function* (file) {
    const source = yield* openBytes(file);
    if (source.size === 0) {
      return yield* new FormatError({ subject: file, reason: `it is empty; ${READABLE}` });
    }
    if (!(yield* isSafetensors(source))) {
      const { value, container } = yield* openTorch(source).pipe(
        Effect.mapError(({ reason }) => new FormatError({ subject: file, reason: `${reason}; ${READABLE}` })),
      );
      const name = container === "pickle" ? "pickle" : `PyTorch ${container}`;
      if (isPublished(value)) {
        const { tensors, published } = yield* readPublished(value, file);
        return { file, container: name, tensors, leftOut: [], content: { kind: "published", published } };
      }
      const all = tensorsWithin(value);
      return yield* weightsAlone(file, name, all, value);
    }
    const { tensors, metadata } = yield* openSafetensors(source);
    if (metadata.format?.startsWith("slotcon-checkpoint/")) {
      const { task, meta, tensors } = yield* openCheckpoint(file);
      return {
        file,
        container: "safetensors",
        tensors,
        leftOut: [],
        content: { kind: "checkpoint", task, meta },
      };
    }
    return yield* weightsAlone(file, "safetensors", tensors);
  },
);

/**
 * Whether a file begins with the length of a JSON header and its first character, as neither a zip nor a pickle does.
 */
const isSafetensors = Effect.fnUntraced(function* (source: ByteSource) {
  if (source.size < 9) return false;
  const start = yield* source.read(0, 9);
  return start[8] === 0x7b && new DataView(start.buffer).getBigUint64(0, true) < 2n ** 40n;
});

const weightsAlone = Effect.fnUntraced(function* (
  file: string,
  container: string,
  all: ReadonlyMap<string, StoredTensor>,
  value: TorchValue = null,
): Effect.fn.Return<WeightsFile, FormatError> {
  const found = findNetworks(all);
  if (found.kind === "networks" || found.kind === "encoder") {
    const { kind, tensors, leftOut } = found;
    return { file, container, tensors, leftOut, content: { kind } };
  }
  if (found.kind === "segmentor") {
    const { kind, tensors, leftOut } = found;
    return { file, container, tensors, leftOut, content: { kind, classes: savedClasses(value) } };
  }
  if (found.kind === "ambiguous") {
    const places = found.places.map((place) => `"${place}"`).join(", ");
    const reason =
      `it has ${found.places.length} encoders, under ${places}, and no name tells which is the teacher's: ` +
      "save one of them in a file of its own";
    return yield* new FormatError({ subject: file, reason });
  }
  const some = [...all.keys()].slice(0, 3).map((name) => `"${name}"`).join(", ");
  const tensors = all.size === 0 ? "no tensors by name" : `${all.size} tensors, such as ${some}`;
  const entries = value instanceof Map ? [...value].filter(([, entry]) => !isStoredTensor(entry)) : [];
  const within = entries.length === 0
    ? ""
    : ` in the entries ${entries.slice(0, 12).map(([key]) => key).join(", ")}`;
  return yield* new FormatError({
    subject: file,
    reason: all.size === 0
      ? `it has ${tensors}${within}; ${READABLE}`
      : `it has ${tensors}${within}, but no ResNet's (looked for conv1.weight, layer1.0.conv1.weight and so on); ${READABLE}`,
  });
});

/** The classes in the metadata of a file of mmsegmentation's (0.x: `meta`, 1.x: `dataset_meta`). */
const savedClasses = (value: TorchValue): SavedClasses => {
  const entry = (of: TorchValue | undefined, name: string) => of instanceof Map ? of.get(name) : undefined;
  const meta = entry(value, "meta");
  const dataset = entry(value, "dataset_meta") ?? entry(meta, "dataset_meta");
  const names = entry(meta, "CLASSES") ?? entry(dataset, "classes");
  const colors = entry(meta, "PALETTE") ?? entry(dataset, "palette");
  return {
    names: isListOf(names, (name) => typeof name === "string") ? names : null,
    colors: isListOf(colors, isColor) ? colors : null,
  };
};

const isListOf = <A>(value: unknown, is: (each: unknown) => each is A): value is A[] =>
  Array.isArray(value) && value.length > 0 && value.every(is);

const isColor = (value: unknown): value is [number, number, number] =>
  Array.isArray(value) && value.length === 3 &&
  value.every((part) => Number.isInteger(part) && part >= 0 && part <= 255);

/** Whether a file holds a whole segmentor: one of mmsegmentation's, or a checkpoint of fine-tuning. */
export const isSegmentor = ({ tensors }: WeightsFile): boolean => tensors.has("decode_head.conv_seg.weight");

/** What a file says of its encoder, without looking at tensors. */
export const encoderFacts = ({ content }: WeightsFile): EncoderFacts =>
  match(content)
    .with({ kind: "checkpoint" }, ({ meta }): EncoderFacts => ({ ...NOTHING_SAID, ...meta.config }))
    .with({ kind: "published" }, ({ published }): EncoderFacts => {
      const arch = argument(published, "arch");
      const imageSize = integerIn(argument(published, "imageSize"));
      return {
        ...NOTHING_SAID,
        arch: Object.hasOwn(ARCHITECTURES, String(arch)) ? arch as ArchitectureName : null,
        imageSize: imageSize !== null && imageSize >= 32 ? imageSize : null,
      };
    })
    .with({ kind: "networks" }, { kind: "segmentor" }, { kind: "encoder" }, () => NOTHING_SAID)
    .exhaustive();

const NOTHING_SAID: EncoderFacts = { arch: null, width: null, outputStride: null, imageSize: null };
