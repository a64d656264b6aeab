/**
 * Replays recorded inference of a segmentor, as a whole and in windows, and compares the normalised image, all scores and
 * the classes.
 */
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import { averageWindows } from "../../ops/average_windows.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { ShapeError } from "../../ops/graph/shape.ts";
import { constant, reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { normalizeBytes } from "../../ops/image/normalize_pixels.ts";
import { resizeBilinear } from "../../ops/resize_bilinear.ts";
import type { CollectiveError } from "../../ops/runtime/collective.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import { slice, transpose } from "../../ops/slice.ts";
import { type PixelSize, windowArgmax } from "../../ops/window_argmax.ts";
import { pack } from "../inference/packed_pictures.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { upload } from "../run/state.ts";
import { checkpointShapes, type StateTensor } from "../run/state_layout.ts";
import { segmentor, type SegmentorOptions } from "../transfer/segmentation/network.ts";
import { windowsOf } from "../transfer/segmentation/segment.ts";
import {
  readInferenceConfig,
  recordedSegmentor,
  type SegmentationInferenceConfig,
} from "./read_segmentation_recording.ts";
import { recordedValues } from "./recorded_values.ts";
import type { Verification } from "./report.ts";
import {
  type Compared,
  compareTensor,
  equal,
  mostEqual,
  never,
  NOT_COMPUTED,
  notComputed,
  relative,
  summarise,
  type Tolerances,
} from "./tensor_errors.ts";

const TOLERANCES = {
  "normalised image": relative(1e-6),
  "windows": equal,
  "scores": relative(3e-4),
  "classes": mostEqual(0.002),
  [NOT_COMPUTED]: never,
} satisfies Tolerances<string>;
type Group = Exclude<keyof typeof TOLERANCES, typeof NOT_COMPUTED>;

const groupOf = (name: string): Group => {
  if (name === "image") return "normalised image";
  if (/\/(windows|count)$/.test(name)) return "windows";
  return name.endsWith("/labels") ? "classes" : "scores";
};

/**
 * Replays recorded inference. Outputs have the recording's own names. Fails with a `FormatError` that names `name` where
 * `file` is no such recording, lacks a tensor of the segmentor, or has tensors of other shapes than its configuration
 * says.
 */
export const verifySegmentationInference: (
  file: TensorFile,
  name: string,
) => Effect.Effect<
  Verification,
  FormatError | GpuError | PlanError | CollectiveError,
  Gpu
> = Effect.fn("verifySegmentationInference")(
  function* (file, name) {
    const config = yield* readInferenceConfig(file.metadata, name);
    const options = yield* recordedSegmentor(config, 0, name);
    const values = recordedValues(file, name);
    const [height, width] = config.size;
    const picture = yield* values("picture", [height, width, 3]);
    const image = yield* values("image", [3, height, width]);

    const outputs = new Map<string, FileTensor>();
    const compared: Compared<Group>[] = [];
    const expected = new Set([...file.tensors.keys()].filter((tensor) => tensor.startsWith("expect/")));
    const compare = Effect.fnUntraced(
      function* (tensor: string, shape: readonly number[], data: ArrayLike<number>) {
        outputs.set(tensor, recordedTensor(tensor, shape, data));
        if (tensor !== "image" && !expected.delete(tensor)) return;
        const group = groupOf(tensor);
        const want = yield* values(tensor, shape);
        compared.push(compareTensor({ group, name: tensor, tolerance: TOLERANCES[group] }, data, want));
      },
    );

    const normalised = yield* run({ image: normalisedPicture(picture, config) }, name, new Map());
    yield* compare("image", [3, height, width], normalised.image.data);
    for (const mode of ["whole", "windows"] as const) {
      const prefix = `expect/${mode === "whole" ? "whole" : "slide"}/`;
      if (![...expected].some((tensor) => tensor.startsWith(prefix))) continue;
      const { state, graph, windows, window } = yield* inferenceGraph(config, options, { image, mode }, name);
      const initial = new Map<string, StateTensor>();
      for (const [tensor, shape] of checkpointShapes(state)) {
        initial.set(tensor, { shape, data: yield* values(`init/${tensor}`, shape) });
      }
      const found = yield* run(graph, name, yield* upload(state, initial));
      for (const [what, { shape, data }] of Object.entries(found)) yield* compare(prefix + what, shape, data);
      if (mode === "whole") continue;
      const edges = windows.flatMap(([top, left]) => [top, top + window[0], left, left + window[1]]);
      yield* compare(`${prefix}windows`, [windows.length, 4], edges);
      yield* compare(`${prefix}count`, [height, width], countsOf(config.size, windows, window));
    }
    for (const tensor of expected) compared.push(notComputed(tensor));
    return { rows: summarise<Group>(TOLERANCES, compared), outputs };
  },
  Effect.scoped,
);

/** Computed values as recordings store them. */
const recordedTensor = (name: string, shape: readonly number[], data: ArrayLike<number>): FileTensor => {
  if (name.endsWith("/windows")) {
    return { dtype: "I64", shape, data: BigInt64Array.from(data as number[], BigInt) };
  }
  return /\/(labels|count)$/.test(name)
    ? { dtype: "U8", shape, data: Uint8Array.from(data) }
    : { dtype: "F32", shape, data: Float32Array.from(data) };
};

type Results = Readonly<Record<string, { readonly shape: readonly number[]; readonly data: Float32Array }>>;

/** The results of a graph by their names, with their shapes. */
const run = Effect.fnUntraced(function* (
  results: Readonly<Record<string, Tensor>>,
  file: string,
  state: Parameters<typeof compile>[1],
) {
  const program = yield* compile({ label: `the recorded inference of ${file}`, outputs: results }, state);
  const found = yield* Effect.flatten(program.run({}));
  return Object.fromEntries(
    Object.entries(results).map(([name, { shape }]) => [name, { shape, data: found[name] }]),
  ) as Results;
});

/** The recorded picture [H, W, 3] as the network is given it. */
const normalisedPicture = (picture: Float32Array, { size, mean, std }: SegmentationInferenceConfig) => {
  const [height, width] = size;
  const words = new Uint32Array(height * width);
  pack({ width, height, rgb: Uint8Array.from(picture) }, words);
  const normalised = normalizeBytes(constant(words, [1, height, width]), { mean, std });
  return planes({ normalised }).normalised;
};

/** What is recorded of one mode, by the names in the recording; `image` [3, H, W] is cut into windows on the host. */
const inferenceGraph = (
  { size, original_size, crop_size, stride, align_corners: alignCorners }: SegmentationInferenceConfig,
  options: SegmentorOptions,
  { image, mode }: { readonly image: Float32Array; readonly mode: "whole" | "windows" },
  file: string,
) =>
  Effect.try({
    try: () => {
      const layout = windowsOf(size, { testMode: mode, window: crop_size, stride });
      const { windows, window: [windowHeight, windowWidth] } = layout;
      const state = new StateBuilder();
      const shape = [windows.length, 3, windowHeight, windowWidth];
      const cut = constant(cutOut(image, size, windows, layout.window), shape);
      const { head: { logits } } = segmentor(student(state, null), transpose(cut, [0, 2, 3, 1]), options);
      const [height, width] = size;
      const [originalHeight, originalWidth] = original_size;
      const averaged = averageWindows(logits, {
        ...{ origins: windows, windowHeight, windowWidth, height, width, alignCorners },
      });
      const resized = resizeBilinear(averaged, {
        height: originalHeight,
        width: originalWidth,
        alignCorners,
      });
      const labels = windowArgmax(logits, constant(Uint32Array.of(0)), {
        ...{ ...layout, image: size, original: original_size, rows: originalHeight, alignCorners },
      });
      const first = { logits: slice(logits, 0, 0, 1), resized };
      if (mode === "whole") return { state, ...layout, graph: { ...planes(first), labels } };
      const second: Record<string, Tensor> = windows.length < 2 ? {} : {
        window1: resizeBilinear(slice(logits, 0, 1, 1), {
          ...{ height: windowHeight, width: windowWidth, alignCorners },
        }),
      };
      return { state, ...layout, graph: { ...planes({ ...first, averaged, ...second }), labels } };
    },
    catch: (error) => {
      if (!(error instanceof ShapeError)) throw error;
      return new FormatError({ subject: file, reason: `its config makes no network: ${error.message}` });
    },
  });

/** Maps of one image [1, h, w, C] as recordings have them, [C, h, w]. */
const planes = (maps: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(maps).map(([name, x]) => {
      const [, h, w, C] = x.shape;
      return [name, reshape(transpose(x, [0, 3, 1, 2]), [C, h, w])];
    }),
  );

/** The windows of planes [3, H, W], one after the other. */
const cutOut = (
  image: Float32Array,
  [height, width]: PixelSize,
  windows: readonly (readonly [top: number, left: number])[],
  [rows, columns]: PixelSize,
): Float32Array => {
  const pieces = new Float32Array(windows.length * 3 * rows * columns);
  let at = 0;
  for (const [top, left] of windows) {
    for (let plane = 0; plane < 3; plane++) {
      for (let row = 0; row < rows; row++, at += columns) {
        const from = (plane * height + top + row) * width + left;
        pieces.set(image.subarray(from, from + columns), at);
      }
    }
  }
  return pieces;
};

/** For every pixel, how many windows cover it. */
const countsOf = (
  [height, width]: PixelSize,
  windows: readonly (readonly [top: number, left: number])[],
  [rows, columns]: PixelSize,
): Float32Array => {
  const counts = new Float32Array(height * width);
  for (const [top, left] of windows) {
    for (let row = top; row < top + rows; row++) {
      for (let column = left; column < left + columns; column++) counts[row * width + column]++;
    }
  }
  return counts;
};
