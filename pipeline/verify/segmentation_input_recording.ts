/** Replays the recorded input of segmentation, stage by stage: all must be equal to the bit. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect } from "effect";
import type { LabelError } from "../../data/datasets/coco_annotations.ts";
import { classesOf, storedNumbers } from "../../data/datasets/segmentation/label_source.ts";
import { exists } from "../../data/files/exists.ts";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileArray, FileTensor } from "../../data/formats/file_tensor.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import { type DecodeError, type Picture, readUpright } from "../../data/images/decode_image.ts";
import { distort } from "../../data/images/distort.ts";
import type { Box } from "../../data/images/resample.ts";
import { resizeBilinear, resizeNearest, type Size } from "../../data/images/resize.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { constant } from "../../ops/graph/tensor.ts";
import { normalizeBytes } from "../../ops/image/normalize_pixels.ts";
import { transpose } from "../../ops/slice.ts";
import type { CollectiveError } from "../../ops/runtime/collective.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { evaluate } from "../../ops/runtime/program.ts";
import { augmented, flipImage, type LabelledImage } from "../transfer/segmentation/augment.ts";
import { RECIPES, type SegmentationConfig } from "../transfer/segmentation/config.ts";
import {
  chooseBox,
  croppedTo,
  isAccepted,
  resizedSize,
  scaledLimits,
} from "../transfer/segmentation/draws.ts";
import { packLabelled } from "../transfer/segmentation/pack.ts";
import { readSegmentationInput, type RecordedInput } from "./read_segmentation_input.ts";
import type { Verification, VerifyRow } from "./report.ts";

/** How replaying input can fail. */
export type InputRecordingError =
  | FormatError
  | DecodeError
  | LabelError
  | GpuError
  | PlanError
  | CollectiveError;

/**
 * Makes the training input of a recording, with its draws, and compares every stage: sizes, boxes and digests of the
 * whole resized image; then each recorded stage with what comes of the recorded one before it.
 *
 * Images are looked for in pictures/ beside the recording, and in augment/pictures/ beside its folder. Outputs have the
 * recording's own names. Fails with a `FormatError` that names `name` if `recording` is no complete recording of input.
 */
export const verifySegmentationInput: (
  recording: TensorFile,
  source: { readonly name: string; readonly folder: string },
) => Effect.Effect<Verification, InputRecordingError, Gpu> = Effect.fn("verifySegmentationInput")(
  function* (recording, { name, folder }) {
    const { draws, normalisation } = yield* readSegmentationInput(recording, name);
    const compared: Compared[] = [];
    const outputs = new Map<string, FileTensor>();
    const check = (group: string, where: string, got: unknown, want: unknown) =>
      compared.push({ group, where, wrong: Number(JSON.stringify(got) !== JSON.stringify(want)) });
    const compare = (group: string, tensor: string, got: FileTensor) => {
      outputs.set(tensor, got);
      compared.push({ group, where: tensor, wrong: differing(got, recording.tensors.get(tensor)!) });
    };
    const recorded = (tensor: string) => {
      const found = recording.tensors.get(tensor);
      return found === undefined
        ? Effect.fail(new FormatError({ subject: name, reason: `it has no tensor "${tensor}"` }))
        : Effect.succeed(found);
    };

    for (const [n, draw] of draws.entries()) {
      const has = (stage: string) => recording.tensors.has(`draw${n}/${stage}`);
      const stage = (stage: string) => recorded(`draw${n}/${stage}`);

      const decoded = yield* readUpright(yield* pictureFile(draw.picture, folder, name));
      if (recording.tensors.has(`decoded/${draw.picture}`)) {
        compare("decoded, upright", `decoded/${draw.picture}`, pictureTensor(decoded));
      }
      check("sizes", `picture_size of draw ${n}`, sides(decoded), draw.picture_size);
      const file = yield* stage(has("label_file") ? "label_file" : "label_0_loaded");
      const values = storedNumbers(MOST[draw.recipe], draw.recipe === "ade20k");
      const labels = yield* classesOf(name, (file.data as Uint8Array).slice(), values, decoded.width);
      compare("labels as loaded", `draw${n}/label_0_loaded`, labelTensor(labels, decoded));

      const limits = scaledLimits({ longSide: draw.img_scale[0], shortSide: draw.img_scale[1] }, draw.ratio);
      const size = resizedSize(decoded, limits);
      check("sizes", `scale of draw ${n}`, [limits.longSide, limits.shortSide], draw.scale);
      check("sizes", `resized_size of draw ${n}`, sides(size), draw.resized_size);
      const whole = { picture: resizeBilinear(decoded, size), labels: resizeNearest(labels, decoded, size) };
      check(
        "resized, by digest",
        `picture of draw ${n}`,
        digest(whole.picture.rgb),
        draw.sha256.picture_1_resized,
      );
      check("resized, by digest", `labels of draw ${n}`, digest(whole.labels), draw.sha256.label_1_resized);
      if (has("picture_1_resized")) {
        compare("resized", `draw${n}/picture_1_resized`, pictureTensor(whole.picture));
      }
      if (has("label_1_resized")) {
        compare("resized", `draw${n}/label_1_resized`, labelTensor(whole.labels, size));
      }

      const { box, boxes } = replayedBox(draw, size, labels, decoded);
      check("boxes", `boxes of draw ${n}`, boxes, draw.crop_tries);
      const crop = augmented({ picture: decoded, labels }, { size, box, flip: false, distortions: [] });
      check("sizes", `normalised_size of draw ${n}`, sides(crop.picture), draw.normalised_size);
      compare("cropped", `draw${n}/picture_2_cropped`, pictureTensor(crop.picture));
      compare("cropped", `draw${n}/label_2_cropped`, labelTensor(crop.labels, crop.picture));

      let before = imageOf(yield* stage("picture_2_cropped"), yield* stage("label_2_cropped"));
      if (draw.flip) {
        flipImage(before);
        compare("flipped", `draw${n}/picture_3_flipped`, pictureTensor(before.picture));
        compare("flipped", `draw${n}/label_3_flipped`, labelTensor(before.labels, before.picture));
        before = imageOf(yield* stage("picture_3_flipped"), yield* stage("label_3_flipped"));
      }
      for (const [i, [distortion, value]] of draw.distortion.entries()) {
        if (value === null) continue;
        const tensor = `draw${n}/picture_4_${i}_${distortion}`;
        distort(before.picture, distortion, value);
        compare(distortion, tensor, pictureTensor(before.picture));
        before = { ...before, picture: pictureOf(yield* recorded(tensor)) };
      }

      const [height, width] = draw.crop;
      const pixels = new Uint32Array(height * width);
      packLabelled(before, pixels, width);
      const padded = Uint8Array.from(pixels, (word) => word >>> 24);
      compare("labels, padded", `draw${n}/label`, labelTensor(padded, { width, height }));
      if (has("image")) {
        const content = Uint32Array.of(before.picture.height, before.picture.width);
        const images = normalizeBytes(
          constant(pixels, [1, height, width]),
          normalisation[draw.recipe],
          constant(content, [1, 2]),
        );
        const data = yield* evaluate(transpose(images, [0, 3, 1, 2]));
        compare("normalised, padded", `draw${n}/image`, { dtype: "F32", shape: [3, height, width], data });
      }
    }
    for (const tensor of recording.tensors.keys()) {
      if (!outputs.has(tensor) && !tensor.endsWith("/label_file")) {
        compared.push({ group: "recorded but not computed", where: tensor, wrong: Infinity });
      }
    }
    return { rows: summarise(compared), outputs } satisfies Verification as Verification;
  },
);

/** Classes of each recipe's data set. */
const MOST = { voc: 21, cityscapes: 19, ade20k: 150 } as const;

const pictureFile = (picture: string, folder: string, name: string): Effect.Effect<string, FormatError> => {
  const paths = ["pictures", join("..", "augment", "pictures")].map((pictures) =>
    join(folder, pictures, picture)
  );
  const found = paths.find(exists);
  if (found !== undefined) return Effect.succeed(found);
  const reason = `its picture is missing, looked for ${paths.map((path) => `"${path}"`).join(" and ")}`;
  return Effect.fail(new FormatError({ subject: name, reason }));
};

/** The box that is chosen of those that were drawn, and the top and left of each that was asked for. */
const replayedBox = (draw: RecordedInput, size: Size, labels: Uint8Array, from: Size) => {
  const crop = { height: draw.crop[0], width: draw.crop[1] };
  const boxes: (readonly [number, number])[] = [];
  const next = (): Box => {
    const [top, left] = draw.crop_tries[boxes.length] ?? [0, 0];
    boxes.push([top, left]);
    return croppedTo(crop, size, top, left);
  };
  const { maxClassShare = 1 }: Partial<SegmentationConfig> = RECIPES[draw.recipe];
  const box = chooseBox(next, (box) => isAccepted(resizeNearest(labels, from, size, box), maxClassShare));
  return { box, boxes };
};

const sides = ({ width, height }: Size) => [width, height];
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

const pictureTensor = ({ width, height, rgb }: Picture): FileTensor => (
  { dtype: "U8", shape: [height, width, 3], data: rgb.slice() }
);
const labelTensor = (labels: Uint8Array, { width, height }: Size): FileTensor => (
  { dtype: "U8", shape: [height, width], data: labels.slice() }
);
const pictureOf = ({ shape: [height, width], data }: FileTensor): Picture => (
  { width, height, rgb: (data as Uint8Array).slice() }
);
const imageOf = (picture: FileTensor, labels: FileTensor): LabelledImage => (
  { picture: pictureOf(picture), labels: Uint8Array.from(labels.data as Uint8Array) }
);

/** The number of values that differ; all of them where shapes do. */
const differing = (got: FileTensor, want: FileTensor | undefined): number => {
  if (want === undefined || JSON.stringify(got.shape) !== JSON.stringify(want.shape)) return Infinity;
  let count = 0;
  const values: FileArray = want.data;
  for (let i = 0; i < values.length; i++) count += Number(got.data[i] !== values[i]);
  return count;
};

interface Compared {
  readonly group: string;
  readonly where: string;
  readonly wrong: number; // values
}

const summarise = (compared: readonly Compared[]): VerifyRow[] =>
  [...Map.groupBy(compared, ({ group }) => group)].map(([group, members]) => {
    const worst = members.reduce((a, b) => b.wrong > a.wrong ? b : a);
    const tolerance = group === "recorded but not computed" ? "none" : "equal";
    return {
      group,
      tensors: members.length,
      worst: worst.wrong,
      tolerance,
      holds: worst.wrong === 0,
      note: worst.where,
    };
  });
