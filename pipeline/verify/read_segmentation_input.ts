/** Recordings of segmentation's input: the draws of images, and their pixels and labels after every stage. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";

const Pair = Schema.Tuple([Schema.Int, Schema.Int]);
const Channels = Schema.Tuple([Schema.Finite, Schema.Finite, Schema.Finite]);
const Draw = Schema.Struct({
  recipe: Schema.Literals(["voc", "cityscapes", "ade20k"]),
  picture: Schema.String,
  picture_size: Pair, // width, height, as all sizes but the crop
  img_scale: Pair,
  ratio: Schema.Finite,
  scale: Pair,
  resized_size: Pair,
  crop: Pair, // height, width
  crop_tries: Schema.Array(Pair), // top, left
  flip: Schema.Boolean,
  distortion: Schema.Array(Schema.Tuple([
    Schema.Literals(["brightness", "contrast", "saturation", "hue"]),
    Schema.NullOr(Schema.Finite),
  ])).pipe(Schema.withDecodingDefaultKey(Effect.succeed([]))),
  normalised_size: Pair,
  sha256: Schema.Struct({ picture_1_resized: Schema.String, label_1_resized: Schema.String }),
});

/** How a recorded image was augmented. */
export type RecordedInput = typeof Draw.Type;

/** The mean and standard deviation of each recipe. */
export type RecordedStatistics = Readonly<
  Record<string, { readonly mean: typeof Channels.Type; readonly std: typeof Channels.Type }>
>;

const Metadata = Schema.Struct({
  draws: Schema.fromJsonString(Schema.Array(Draw)),
  normalisation: Schema.fromJsonString(
    Schema.Record(Schema.String, Schema.Struct({ mean: Channels, std: Channels })),
  ),
});
const decodeMetadata = Schema.decodeUnknownEffect(Metadata);

/** The description in a recording of input. Fails with a `FormatError` that names `name` for any other file. */
export const readSegmentationInput = (
  file: TensorFile,
  name: string,
): Effect.Effect<
  { readonly draws: readonly RecordedInput[]; readonly normalisation: RecordedStatistics },
  FormatError
> =>
  decodeMetadata(file.metadata).pipe(
    Effect.mapError(({ message }) =>
      new FormatError({ subject: name, reason: `it is no recording of segmentation's input: ${message}` })
    ),
  );
