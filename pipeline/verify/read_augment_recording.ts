/** Recordings of how pictures become pairs of views: the draws, and the pixels after every operation. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import type { TwoCropDraw, ViewDraw } from "../pretrain/draws.ts";

/** The operations that make a view, in the order in which they follow each other; jitter has an order of its own. */
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
export type Stage = (typeof STAGES)[number];

/** Two views of a picture as they were recorded. */
export interface RecordedDraw {
  readonly note: string;
  /** File name of the picture. */
  readonly image: string;
  readonly views: TwoCropDraw["views"];
  /** The recorded stages of each view, in their order. */
  readonly stages: readonly [readonly Stage[], readonly Stage[]];
}

export interface AugmentRecording {
  /** Side of the square views in pixels. */
  readonly size: number;
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

/** What a safetensors file recorded of augmentation. Fails with a `FormatError` that names `name` if it is no such recording. */
export const readAugmentRecording = (
  file: TensorFile,
  name: string,
): Effect.Effect<AugmentRecording, FormatError> =>
  decodeMetadata(file.metadata).pipe(
    Effect.mapError(({ message }) =>
      new FormatError({ file: name, reason: `it is no recording of augmentation: ${message}` })
    ),
  );
