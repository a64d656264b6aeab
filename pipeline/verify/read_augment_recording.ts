/** Recordings of augmentation: the draws of pairs of views, and the pixels after every operation. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import type { TwoCropDraw, ViewDraw } from "../pretrain/draws.ts";

/** The operations that make a view, in their order; that of colour operations is drawn. */
const STAGES = [
  "crop",
  "flip",
  "brightness",
  "contrast",
  "saturation",
  "hue",
  "gray",
  "blur",
  "solarize",
] as const;
/** An operation that makes a view. */
export type Stage = (typeof STAGES)[number];

/** Two recorded views of an image. */
export interface RecordedDraw {
  /** The reason for which this draw is in the recording. */
  readonly note: string;
  /** The file name of the image. */
  readonly image: string;
  /** How the views are made. */
  readonly views: TwoCropDraw["views"];
  /** The recorded stages of each view, in their order. */
  readonly stages: readonly [readonly Stage[], readonly Stage[]];
}

/** The description in a recording of augmentation. */
export interface AugmentRecording {
  /** The side of the square views, in pixels. */
  readonly size: number;
  /** The recorded pairs of views. */
  readonly draws: readonly RecordedDraw[];
}

const View: Schema.Codec<ViewDraw> = Schema.Struct({
  box: Schema.Tuple([Schema.Int, Schema.Int, Schema.Int, Schema.Int]),
  flip: Schema.Boolean,
  jitter: Schema.Array(
    Schema.Tuple([Schema.Literals(["brightness", "contrast", "saturation", "hue"]), Schema.Number]),
  ),
  gray: Schema.Boolean,
  blur: Schema.NullOr(Schema.Number),
  solarize: Schema.Boolean,
});
const Stages = Schema.Array(Schema.Literals(STAGES));
const Metadata = Schema.Struct({
  format: Schema.Literal("slotcon-augment-recording/1"),
  size: Schema.NumberFromString.check(Schema.isInt(), Schema.isGreaterThan(0)),
  draws: Schema.fromJsonString(Schema.Array(Schema.Struct({
    note: Schema.String,
    image: Schema.String,
    views: Schema.Tuple([View, View]),
    stages: Schema.Tuple([Stages, Stages]),
  }))),
});
const decodeMetadata = Schema.decodeUnknownEffect(Metadata);

/** The description in a recording of augmentation. Fails with a `FormatError` that names `name` for any other file. */
export const readAugmentRecording = (
  file: TensorFile,
  name: string,
): Effect.Effect<AugmentRecording, FormatError> =>
  decodeMetadata(file.metadata).pipe(
    Effect.mapError(({ message }) =>
      new FormatError({ subject: name, reason: `it is no recording of augmentation: ${message}` })
    ),
  );
