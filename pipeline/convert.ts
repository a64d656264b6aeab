/** Files of weights for other tools: what is in one file, as the bytes of another. */
import { Effect, Schema } from "effect";
import { match } from "ts-pattern";
import type { FormatError } from "../data/files/format_error.ts";
import { type FileTensor, type StoredTensor, widened } from "../data/formats/file_tensor.ts";
import { OrderedDict } from "../data/formats/pickle/values.ts";
import { type PickleInput, writePickle } from "../data/formats/pickle/write.ts";
import { writeSafetensors } from "../data/formats/safetensors.ts";
import { writeTorch } from "../data/formats/torch/write.ts";
import { planSchedule } from "./optim/schedule.ts";
import { publishedContents, publishedMeta, publishedState, withAllVelocities } from "./pretrain/published.ts";
import { PRETRAIN, type PretrainMeta, pretrainMeta } from "./pretrain/task.ts";
import { checkpointPieces } from "./run/checkpoint_file.ts";
import { readState } from "./run/state.ts";
import { fileTensor, type StateTensor } from "./run/state_layout.ts";
import { architectureOf, detectron2Name, encoderOf, type Which } from "./weights/encoder.ts";
import { encoderOnnx, type ExportError } from "./weights/encoder_onnx.ts";
import type { WeightsFile } from "./weights/weights_file.ts";

/** What can be written. The first two are whole runs, the others an encoder. */
export const FORMATS = ["slotcon", "pth", "backbone", "mmseg", "detectron2", "safetensors", "onnx"] as const;
export type Format = (typeof FORMATS)[number];

export class ConvertError extends Schema.TaggedError<ConvertError>()("ConvertError", {
  file: Schema.String,
  to: Schema.Literals(FORMATS),
  reason: Schema.String,
}) {
  override get message() {
    return `Cannot convert "${this.file}" to ${this.to}: ${this.reason}`;
  }
}

export interface Converted {
  /** To be written one after the other; mostly views of the tensors, which are held once. */
  readonly pieces: readonly Uint8Array<ArrayBuffer>[];
  /** What the user should know. */
  readonly notes: readonly string[];
}

/**
 * The bytes of a file in another format; the same file gives the same bytes. Fails with a `FormatError` where a tensor
 * cannot be read, a `ConvertError` where the file does not hold what the format needs.
 */
export const convert = Effect.fn("convert")(function* (
  weights: WeightsFile,
  { to, which }: { readonly to: Format; readonly which: Which },
): Effect.fn.Return<Converted, FormatError | ConvertError | ExportError> {
  // What a format cannot hold: more than 4 GiB, or types that its readers lack.
  const written = (write: () => Converted["pieces"]) =>
    Effect.try({
      try: write,
      catch: (error) => new ConvertError({ file: weights.file, to, reason: (error as RangeError).message }),
    });
  if (to === "slotcon" || to === "pth") {
    const { meta, tensors } = yield* wholeRun(weights, to);
    if (to === "slotcon") return { pieces: yield* checkpointPieces(PRETRAIN, { meta, tensors }), notes: [] };
    return {
      pieces: yield* written(() => writeTorch(publishedContents(meta, asFile(tensors)))),
      notes: midEpoch(meta),
    };
  }

  const encoder = yield* encoderOf(weights, which);
  const alone = weights.content.kind === "encoder" && which === "student"
    ? ["The file holds one encoder: it is neither the student's nor the teacher's"]
    : [];
  const tensors = yield* loaded(encoder);
  const pieces = yield* match(to)
    .with("backbone", () => written(() => writeTorch(ordered(tensors))))
    .with(
      "mmseg",
      () => written(() => writeTorch(new Map([["state_dict", ordered(withoutClassifier(tensors))]]))),
    )
    .with("detectron2", () => written(() => writePickle(detectron2(tensors))))
    .with(
      "safetensors",
      () => Effect.map(describe(weights, encoder), (about) => writeSafetensors(tensors, about)),
    )
    .with(
      "onnx",
      () =>
        Effect.flatMap(
          architectureOf(weights, encoder),
          (options) => encoderOnnx(inFloats(tensors), options),
        ),
    )
    .exhaustive();
  return { pieces, notes: alone };
});

/** Everything that a run needs to go on. */
const wholeRun = Effect.fnUntraced(
  function* ({ file, tensors, content }: WeightsFile, to: "slotcon" | "pth") {
    const refuse = (reason: string) => new ConvertError({ file, to, reason });
    if (content.kind === "checkpoint") {
      const meta = yield* pretrainMeta(file, content).pipe(Effect.mapError(({ reason }) => refuse(reason)));
      return { meta, tensors: yield* readState(tensors) };
    }
    const meta = yield* match(content)
      .with({ kind: "published" }, ({ published }) => {
        const stem = tensors.get("encoder_q.conv1.weight") ?? tensors.get("encoder_q.conv1.6.weight");
        const meta = publishedMeta(published, stem?.shape[0] ?? 64);
        return meta !== null ? Effect.succeed(meta) : refuse(
          "its args do not say how many pictures the run has (num_instances), on which the schedules depend: " +
            "go on with it by slotcon pretrain --resume, which counts them",
        );
      })
      .otherwise(() =>
        refuse(
          "it holds weights, but no run with an optimiser and a step; slotcon pretrain --init starts one from them",
        )
      );
    return { meta, tensors: withAllVelocities(yield* readState(tensors), publishedState(meta.config)) };
  },
);

const asFile = (tensors: ReadonlyMap<string, StateTensor>): ReadonlyMap<string, FileTensor> =>
  new Map([...tensors].map(([name, tensor]) => [name, fileTensor(name, tensor)]));

const midEpoch = ({ step, config, instances }: PretrainMeta): string[] => {
  const { stepsPerEpoch } = planSchedule({ ...config, world: 1, instances });
  const beyond = step % stepsPerEpoch;
  return beyond === 0 ? [] : [
    `Step ${step} is ${beyond} steps into epoch ${
      Math.floor(step / stepsPerEpoch) + 1
    }: the published code resumes at ` +
    `whole epochs and will begin this one again`,
  ];
};

const loaded = Effect.fnUntraced(function* (tensors: ReadonlyMap<string, StoredTensor>) {
  const all = new Map<string, FileTensor>();
  for (const [name, { dtype, shape, values }] of tensors) {
    all.set(name, { dtype, shape, data: yield* values });
  }
  return all;
});

const ordered = (tensors: ReadonlyMap<string, FileTensor>): PickleInput =>
  new OrderedDict(tensors as never) as never;

const withoutClassifier = (tensors: ReadonlyMap<string, FileTensor>) =>
  new Map([...tensors].filter(([name]) => !name.includes("fc")));

const detectron2 = (tensors: ReadonlyMap<string, FileTensor>): PickleInput =>
  new Map<PickleInput, PickleInput>([
    ["model", new Map([...tensors].map(([name, tensor]) => [detectron2Name(name), tensor]))],
    ["__author__", "SlotCon"],
    ["matching_heuristics", true],
  ]);

/** Metadata as Hugging Face's tools write it: `format` says that names and layouts are PyTorch's. */
const describe = Effect.fnUntraced(function* (
  weights: WeightsFile,
  encoder: ReadonlyMap<string, StoredTensor>,
) {
  const { arch, width } = yield* architectureOf(weights, encoder);
  return { format: "pt", arch, width: String(width), method: "SlotCon" };
});

const inFloats = (tensors: ReadonlyMap<string, FileTensor>): ReadonlyMap<string, FileTensor> =>
  new Map([...tensors].map(([name, { dtype, shape, data }]) => [
    name,
    { dtype: "F32", shape, data: widened(dtype, data) },
  ]));
