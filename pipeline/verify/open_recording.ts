/** Files of recordings. The kind of a recording is recognised by its content, whatever its name. */
import { Effect } from "effect";
import { FormatError, isObject } from "../../data/files/format_error.ts";
import { readSafetensors, type TensorFile } from "../../data/formats/safetensors.ts";

/** A recording that has been read. */
export type Recording =
  | {
    readonly kind:
      | "step"
      | "augment"
      | "retrieval"
      | "segmentationStep"
      | "segmentationInference"
      | "segmentationInput";
    readonly tensors: TensorFile;
  }
  | {
    readonly kind: "schedule" | "segmentationRates" | "segmentationSizes" | "segmentationModels";
    readonly json: unknown;
  }
  | { readonly kind: "evaluation"; readonly json: unknown; readonly tensors: TensorFile };

const STEP = "slotcon-step-recording/1";
const AUGMENT = "slotcon-augment-recording/1";
const KNN = "slotcon-knn-recording/1";
const SCHEDULE = "slotcon-schedules/1";
const LOOKED_FOR =
  `looked for safetensors of format ${STEP}, ${AUGMENT} or ${KNN}, JSON of format ${SCHEDULE}, or a recording of ` +
  "fine-tuning: steps, inference, input or label maps (safetensors), learning rates, sizes, scores or models (JSON)";

/**
 * Reads a recording of training steps, of augmentation, of retrieval (all safetensors), of schedules (JSON); or of
 * fine-tuning: of its steps, inference and input (safetensors), its learning rates, sizes of images and models (JSON), or of
 * an evaluation (safetensors and JSON of the same name; either opens both). Fails with a `FormatError` that lists these.
 */
export const openRecording: (path: string) => Effect.Effect<Recording, FormatError> = Effect.fn(
  "openRecording",
)(
  function* (path) {
    const refuse = (reason: string) => new FormatError({ subject: path, reason });
    const bytes = yield* read(path);

    const json = parsedJson(bytes);
    if (json !== undefined) {
      const format = (json as { format?: unknown } | null)?.format;
      if (format === SCHEDULE) return { kind: "schedule", json };
      if (hasAll(json, ["models", "backbone_keys"])) return { kind: "segmentationModels", json };
      if (haveEach(json, "schedules", "policy")) return { kind: "segmentationRates", json };
      if (haveEach(json, "test", "resized")) return { kind: "segmentationSizes", json };
      if (haveEach(json, "cases", "confusion")) {
        const maps = besides(path, ".safetensors");
        return { kind: "evaluation", json, tensors: yield* readSafetensors(yield* read(maps), maps) };
      }
      return yield* refuse(`it is JSON of ${named(format)}; ${LOOKED_FOR}`);
    }
    const tensors = yield* readSafetensors(bytes, path).pipe(
      Effect.mapError(({ reason }) => refuse(`${reason}; ${LOOKED_FOR}`)),
    );
    const { format } = tensors.metadata;
    if (format === STEP) return { kind: "step", tensors };
    if (format === AUGMENT) return { kind: "augment", tensors };
    if (format === KNN) return { kind: "retrieval", tensors };
    const has = (tensor: string) => tensors.tensors.has(tensor);
    if (has("step0/images") && has("step0/labels")) return { kind: "segmentationStep", tensors };
    if (has("expect/whole/logits")) return { kind: "segmentationInference", tensors };
    if (hasAll(tensors.metadata, ["draws", "normalisation"])) return { kind: "segmentationInput", tensors };
    if (tensors.metadata.cases !== undefined) {
      return {
        kind: "evaluation",
        json: parsedJson(yield* read(besides(path, ".json"))),
        tensors,
      };
    }
    return yield* refuse(`it is safetensors of ${named(format)}; ${LOOKED_FOR}`);
  },
);

const read = (path: string): Effect.Effect<Uint8Array<ArrayBuffer>, FormatError> =>
  Effect.tryPromise({
    try: () => Deno.readFile(path),
    catch: (error) => {
      const reason = error instanceof Deno.errors.NotFound
        ? "there is no such file"
        : error instanceof Deno.errors.IsADirectory
        ? "it is a folder"
        : String(error);
      return new FormatError({ subject: path, reason });
    },
  });

const hasAll = (json: unknown, names: readonly string[]): boolean =>
  isObject(json) && names.every((name) => name in json);

/** Whether JSON has a list of this name with objects that have such a key. */
const haveEach = (json: unknown, list: string, key: string): boolean => {
  const entries = (json as Readonly<Record<string, unknown>> | null)?.[list];
  return Array.isArray(entries) && entries.length > 0 && entries.every((each) => each?.[key] !== undefined);
};

/** The file beside this one that has the same name, with another ending. */
const besides = (path: string, ending: string): string => path.replace(/(\.\w+)?$/, ending);

const named = (format: unknown) => typeof format === "string" ? `format ${format}` : "no format";

/** The contents of a file as JSON; undefined for other files. */
const parsedJson = (bytes: Uint8Array): unknown => {
  const start = new TextDecoder().decode(bytes.subarray(0, 64)).trimStart();
  if (!/^[{[]/.test(start)) return undefined;
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
};
