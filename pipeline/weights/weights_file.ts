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
import { argument, integerIn, isPublished, type Published, readPublished } from "./published_file.ts";

/** A file of weights that is open. */
export interface WeightsFile {
  /** Its path. */
  readonly file: string;
  /** The kind of file, as text: "safetensors", "PyTorch zip". */
  readonly container: string;
  /**
   * The tensors by name: those of a run, `encoder_k.conv1.weight` and `optimizer.encoder_q.conv1.weight`, or those of
   * an encoder alone, under torchvision's names.
   */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
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
  /** An encoder alone. */
  | { readonly kind: "encoder" };

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
        return { file, container: name, tensors, content: { kind: "published", published } };
      }
      return yield* weightsAlone(file, name, stateDict(value));
    }
    const { tensors, metadata } = yield* openSafetensors(source);
    if (metadata.format?.startsWith("slotcon-checkpoint/")) {
      const { task, meta, tensors } = yield* openCheckpoint(file);
      return { file, container: "safetensors", tensors, content: { kind: "checkpoint", task, meta } };
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

/** The tensors of a state dict, or of the one under `state_dict` or `model`, where many tools store it. */
const stateDict = (value: TorchValue): ReadonlyMap<string, StoredTensor> => {
  if (!(value instanceof Map)) return new Map();
  for (const key of ["state_dict", "model"]) {
    if (value.get(key) instanceof Map) return stateDict(value.get(key)!);
  }
  return new Map(
    [...value].filter((entry): entry is [string, StoredTensor] =>
      typeof entry[0] === "string" && isStoredTensor(entry[1])
    ),
  );
};

const weightsAlone = Effect.fnUntraced(function* (
  file: string,
  container: string,
  found: ReadonlyMap<string, StoredTensor>,
): Effect.fn.Return<WeightsFile, FormatError> {
  const names = [...found.keys()].map((name) => name.replace(/^module\./, ""));
  const tensors = new Map([...found.values()].map((tensor, i) => [names[i], tensor]));
  if (names.some((name) => /^encoder_[qk]\./.test(name))) {
    return { file, container, tensors, content: { kind: "networks" } };
  }
  // Detectors and segmenters keep their encoder under a name of its own, beside their other parts.
  const prefix = ["", "backbone.", "backbone.bottom_up.", "encoder."].find((prefix) =>
    names.some((name) => name.startsWith(prefix) && isOfEncoder(torchvisionName(name.slice(prefix.length))))
  );
  if (prefix === undefined) {
    const some = names.slice(0, 3).map((name) => `"${name}"`).join(", ");
    const reason = names.length === 0
      ? "it has no tensors by name"
      : `it has ${names.length} tensors, such as ${some}`;
    return yield* new FormatError({
      subject: file,
      reason:
        `${reason}, but no ResNet's (looked for conv1.weight, layer1.0.conv1.weight and so on); ${READABLE}`,
    });
  }
  const encoder = new Map<string, StoredTensor>();
  for (const [name, tensor] of tensors) {
    const own = name.startsWith(prefix) ? torchvisionName(name.slice(prefix.length)) : "";
    if (isOfEncoder(own)) encoder.set(own, tensor);
  }
  return { file, container, tensors: encoder, content: { kind: "encoder" } };
});

const isOfEncoder = (name: string) => /^(conv1|bn1|layer[1-4])\./.test(name);

/** A name of detectron2's as torchvision has it; other names unchanged. */
const torchvisionName = (name: string): string =>
  /^(stem|res[2-5])\./.test(name)
    ? name.replace(/^stem\./, "")
      .replace(/^res(\d)\./, (_, stage) => `layer${stage - 1}.`)
      .replace(/\bconv(\d)\.norm\./, "bn$1.")
      .replace(/\bshortcut\.norm\./, "downsample.1.")
      .replace(/\bshortcut\./, "downsample.0.")
    : name;

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
    .with({ kind: "networks" }, { kind: "encoder" }, () => NOTHING_SAID)
    .exhaustive();

const NOTHING_SAID: EncoderFacts = { arch: null, width: null, outputStride: null, imageSize: null };
