/** Files of weights for other tools: the contents of one file as the bytes of another. */
import { Data, Effect } from "effect";
import { match } from "ts-pattern";
import type { FormatError } from "../data/files/format_error.ts";
import { type FileTensor, type StoredTensor, widened } from "../data/formats/file_tensor.ts";
import { OrderedDict } from "../data/formats/pickle/values.ts";
import { type PickleInput, writePickle } from "../data/formats/pickle/write.ts";
import { writeSafetensors } from "../data/formats/safetensors.ts";
import { writeTorch } from "../data/formats/torch/write.ts";
import type { EncoderOptions } from "./model/resnet.ts";
import { planSchedule } from "./optim/schedule.ts";
import { publishedContents, publishedMeta, publishedState, withAllVelocities } from "./pretrain/published.ts";
import { PRETRAIN, type PretrainMeta, pretrainMeta } from "./pretrain/task.ts";
import { type CheckpointError, checkpointPieces } from "./run/checkpoint_file.ts";
import { expectFiniteValues, readState } from "./run/state.ts";
import { fileTensor, type StateTensor } from "./run/state_layout.ts";
import { detectron2Name, type Which, wholeEncoderOf } from "./weights/encoder.ts";
import { segmentorOnnx } from "./transfer/segmentation/onnx.ts";
import type { RecipeName } from "./transfer/segmentation/config.ts";
import { type SavedSegmentor, segmentorOf } from "./transfer/segmentation/weights.ts";
import { encoderOnnx, type ExportError } from "./weights/encoder_onnx.ts";
import { isSegmentor, type WeightsFile } from "./weights/weights_file.ts";

/** The name of a format that can be written. */
export type Format =
  | "slotcon"
  | "pth"
  | "backbone"
  | "mmseg"
  | "mmseg-segmentor"
  | "detectron2"
  | "safetensors"
  | "onnx";

/** A whole run: all that it needs to go on. */
interface Run {
  readonly meta: PretrainMeta;
  readonly tensors: ReadonlyMap<string, StateTensor>;
}

/** An encoder: its tensors under torchvision's names, and its architecture. */
interface Encoder {
  readonly tensors: ReadonlyMap<string, FileTensor>;
  readonly options: EncoderOptions;
}

/** A tensor of 32-bit floats. */
interface FloatTensor extends FileTensor {
  readonly dtype: "F32";
  readonly data: Float32Array;
}

/** A format that holds a `Contents`: a row of the table below. A `RangeError` says that the format cannot hold them. */
interface FormatOf<Needs extends string, Contents> {
  readonly needs: Needs;
  readonly write: (
    contents: Contents,
  ) => Effect.Effect<Converted["pieces"], FormatError | ExportError | RangeError>;
  /** Sentences that the user should know about the file. */
  readonly notes?: (contents: Contents) => readonly string[];
}
type RunFormat = FormatOf<"run", Run>;
type EncoderFormat = FormatOf<"encoder", Encoder>;
type SegmentorFormat = FormatOf<"segmentor", SavedSegmentor>;

const written = (write: () => Converted["pieces"]): Effect.Effect<Converted["pieces"], RangeError> =>
  Effect.try({ try: write, catch: (error) => error as RangeError });

const ROWS: Readonly<Record<Format, RunFormat | EncoderFormat | SegmentorFormat>> = {
  slotcon: { needs: "run", write: (run) => checkpointPieces(PRETRAIN, run) },
  pth: {
    needs: "run",
    write: ({ meta, tensors }) => written(() => writeTorch(publishedContents(meta, asFile(tensors)))),
    notes: ({ meta }) => midEpoch(meta),
  },
  backbone: {
    needs: "encoder",
    write: ({ tensors }) => written(() => writeTorch(ordered(tensors))),
  },
  mmseg: {
    needs: "encoder",
    write: ({ tensors }) => written(() => writeTorch(new Map([["state_dict", ordered(tensors)]]))),
  },
  "mmseg-segmentor": {
    needs: "segmentor",
    write: ({ classes, values }) =>
      written(() =>
        writeTorch(
          new Map<PickleInput, PickleInput>([
            ["meta", mmsegMeta(classes)],
            ["state_dict", ordered(asFile(values))],
          ]),
        )
      ),
  },
  detectron2: {
    needs: "encoder",
    write: ({ tensors }) => written(() => writePickle(detectron2(withoutBfloat16(tensors)))),
  },
  safetensors: {
    needs: "encoder",
    write: ({ tensors, options }) => written(() => writeSafetensors(tensors, about(options))),
  },
  onnx: {
    needs: "encoder",
    write: ({ tensors, options }) => encoderOnnx(inFloats(tensors), options),
  },
};

/** What `onnx` is of a whole segmentor. */
const SEGMENTOR_ONNX: SegmentorFormat = {
  needs: "segmentor",
  write: segmentorOnnx,
  notes: () => ["The file is of the whole segmentor; for its encoder alone, convert --to backbone first"],
};

/** All formats that can be written. */
export const FORMATS: readonly Format[] = Object.keys(ROWS) as Format[];

/** A file does not hold what a format needs, or a format cannot hold what is in a file. */
export class ConvertError extends Data.Error<{
  readonly subject: string;
  readonly to: Format;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "ConvertError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot convert "${this.subject}" to ${this.to}: ${this.reason}`;
  }
}

/** A file in another format. */
export interface Converted {
  /** Its bytes, to be written one piece after the other; mostly views of the tensors, which are held once. */
  readonly pieces: readonly Uint8Array<ArrayBuffer>[];
  /** Sentences that the user should know about it. */
  readonly notes: readonly string[];
}

/**
 * The bytes of a file in the format `to`, of the encoder `which` where the file has two; the same file gives the same
 * bytes. Of a segmentor, `onnx` is the whole; `recipe` says what a file of mmsegmentation's does not. Fails with a
 * `FormatError` where a tensor cannot be read or is not finite, a `ConvertError` where the file does not hold what
 * the format needs, and an `ExportError` where an encoder cannot be written as ONNX.
 */
export const convert: (
  weights: WeightsFile,
  options: { readonly to: Format; readonly which: Which; readonly recipe?: RecipeName | null },
) => Effect.Effect<Converted, FormatError | CheckpointError | ConvertError | ExportError> = Effect.fn(
  "convert",
)(function* (
  weights,
  { to, which, recipe = null },
) {
  const format = to === "onnx" && isSegmentor(weights) ? SEGMENTOR_ONNX : ROWS[to];
  if (format.needs === "segmentor") {
    if (!isSegmentor(weights)) {
      const reason =
        "it holds no fully convolutional segmentor; slotcon transfer segmentation makes one from an encoder";
      return yield* new ConvertError({ subject: weights.file, to, reason });
    }
    const segmentor = yield* segmentorOf(weights, recipe);
    const { pieces, notes } = yield* convertedAs(format, segmentor, weights, to);
    return { pieces, notes: [...to === "onnx" ? segmentor.notes : [], ...notes] };
  }
  if (format.needs === "run") return yield* convertedAs(format, yield* wholeRun(weights, to), weights, to);
  const { tensors, options } = yield* wholeEncoderOf(weights, which);
  const encoder = { tensors: yield* loaded(weights.file, tensors), options };
  const { pieces, notes } = yield* convertedAs(format, encoder, weights, to);
  const isNeither = (weights.content.kind === "encoder" || isSegmentor(weights)) && which === "student";
  const note = "The file holds one encoder: it is neither the student's nor the teacher's";
  return { pieces, notes: isNeither ? [note, ...notes] : notes };
});

const convertedAs = <Contents>(
  { write, notes = () => [] }: FormatOf<string, Contents>,
  contents: Contents,
  { file }: WeightsFile,
  to: Format,
): Effect.Effect<Converted, FormatError | ConvertError | ExportError> =>
  write(contents).pipe(
    Effect.map((pieces) => ({ pieces, notes: notes(contents) })),
    Effect.mapError((error) =>
      error instanceof RangeError ? new ConvertError({ subject: file, to, reason: error.message }) : error
    ),
  );

/** The run that a file holds. Fails with a `ConvertError` where it holds none. */
const wholeRun = Effect.fnUntraced(
  function* (
    { file, tensors, content }: WeightsFile,
    to: Format,
  ): Effect.fn.Return<Run, FormatError | ConvertError> {
    const refuse = (reason: string) => new ConvertError({ subject: file, to, reason });
    if (content.kind === "checkpoint") {
      const meta = yield* pretrainMeta(file, content).pipe(Effect.mapError(({ reason }) => refuse(reason)));
      return { meta, tensors: yield* readState(file, tensors) };
    }
    const meta = yield* match(content)
      .with({ kind: "published" }, ({ published }) => {
        if (published.trouble !== null) return refuse(published.trouble);
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
    return { meta, tensors: withAllVelocities(yield* readState(file, tensors), publishedState(meta.config)) };
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

const loaded = Effect.fnUntraced(function* (file: string, tensors: ReadonlyMap<string, StoredTensor>) {
  const all = new Map<string, FileTensor>();
  for (const [name, { dtype, shape, values }] of tensors) {
    all.set(name, { dtype, shape, data: yield* values });
  }
  yield* expectFiniteValues(file, inFloats(all));
  return all;
});

/** Classes as mmsegmentation's files have them. */
const mmsegMeta = (classes: SavedSegmentor["classes"]): PickleInput =>
  new Map<PickleInput, PickleInput>([
    ["CLASSES", classes.map(({ name }) => name)],
    ["PALETTE", classes.map(({ color }) => [...color])],
  ]);

const ordered = (tensors: ReadonlyMap<string, FileTensor>): PickleInput =>
  new OrderedDict(tensors as never) as never;

const detectron2 = (tensors: ReadonlyMap<string, FileTensor>): PickleInput =>
  new Map<PickleInput, PickleInput>([
    ["model", new Map([...tensors].map(([name, tensor]) => [detectron2Name(name), tensor]))],
    ["__author__", "SlotCon"],
    ["matching_heuristics", true],
  ]);

/** Metadata as Hugging Face's tools write it: `format` says that names and layouts are PyTorch's. */
const about = ({ arch, width }: EncoderOptions) => (
  { format: "pt", arch, width: String(width), method: "SlotCon" }
);

/** NumPy, whose arrays detectron2 reads, has no bf16. */
const withoutBfloat16 = (tensors: ReadonlyMap<string, FileTensor>): ReadonlyMap<string, FileTensor> =>
  new Map([...tensors].map(([name, tensor]) => [
    name,
    tensor.dtype === "BF16" ? { ...tensor, dtype: "F32", data: widened("BF16", tensor.data) } : tensor,
  ]));

const inFloats = (tensors: ReadonlyMap<string, FileTensor>): ReadonlyMap<string, FloatTensor> =>
  new Map([...tensors].map(([name, { dtype, shape, data }]) => [
    name,
    { dtype: "F32", shape, data: widened(dtype, data) },
  ]));
