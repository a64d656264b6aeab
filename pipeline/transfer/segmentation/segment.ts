/** Images of any size to the class of each pixel: as a whole, or in windows whose scores are averaged (docs/method.md, section 18). */
import { Effect, type Scope } from "effect";
import type { PlanError } from "../../../ops/compiler/limits.ts";
import { input } from "../../../ops/graph/tensor.ts";
import { normalizeBytes } from "../../../ops/image/normalize_pixels.ts";
import type { Gpu, GpuError } from "../../../ops/runtime/gpu.ts";
import type { DeviceState } from "../../../ops/runtime/program.ts";
import { programSet } from "../../../ops/runtime/program_set.ts";
import { type PixelSize, windowArgmax, type WindowLayout } from "../../../ops/window_argmax.ts";
import type { RunError } from "../../inference/descriptors.ts";
import { student } from "../../model/slotcon_network.ts";
import { StateBuilder } from "../../model/state_builder.ts";
import { upload } from "../../run/state.ts";
import type { SegmentationConfig } from "./config.ts";
import { segmentor, type SegmentorOptions } from "./network.ts";
import { PIXEL_STATISTICS } from "./step_graph.ts";
import { type SavedSegmentor, segmentorOptions, segmentorState } from "./weights.ts";

/** How a segmentor is shown an image, and which one it is. */
export interface SegmenterOptions
  extends SegmentorOptions, Pick<SegmentationConfig, "alignCorners" | "pixelStatistics" | "testMode"> {
  /** Size of the windows, in pixels. */
  readonly window: PixelSize;
  /** Pixels from one window to the next. */
  readonly stride: PixelSize;
}

/** How a run with so many classes shows images to its segmentor. */
export const segmenterOptions = (config: SegmentationConfig, classes: number): SegmenterOptions => ({
  ...segmentorOptions(config, classes),
  ...{
    alignCorners: config.alignCorners,
    pixelStatistics: config.pixelStatistics,
    testMode: config.testMode,
  },
  ...{ window: [config.cropSize, config.cropSize], stride: [config.windowStride, config.windowStride] },
});

/** A segmentor from a file on the device, until the scope ends. Fails with a GpuError where it lacks memory. */
export const savedSegmenter: (
  saved: SavedSegmentor,
) => Effect.Effect<Segment, GpuError, Gpu | Scope.Scope> = Effect.fnUntraced(
  function* ({ config, classes, values }) {
    const options = segmenterOptions(config, classes.length);
    return yield* segmenter(options, yield* upload(segmentorState(options), values));
  },
);

/** An image that has been resized for a segmentor. */
export interface ShownImage {
  /** [H, W], a word r | g << 8 | b << 16 a pixel. */
  readonly pixels: Uint32Array;
  /** H × W. */
  readonly size: PixelSize;
  /** The image's size in its file. */
  readonly original: PixelSize;
}

/**
 * Finds the class of each pixel of an image at its original size, [height, width]. Waits for the device. Fails with
 * PlanError where the adapter has too little memory for such an image, or as running a program does.
 */
export type Segment = (image: ShownImage) => Effect.Effect<Uint8Array<ArrayBuffer>, PlanError | RunError>;

/** Programs that are kept: one for each size of image or window, and one for each pair of sizes. */
const KEPT = 12;
/** Pixels whose classes are found at a time. */
const BAND = 2 ** 22;

/**
 * A function that segments images by the parameters in `state`, one image at a time, until the scope ends. Programs are
 * compiled for each size when it is first met, and share their memory.
 */
export const segmenter: (
  options: SegmenterOptions,
  state: DeviceState,
) => Effect.Effect<Segment, never, Gpu | Scope.Scope> = Effect.fnUntraced(function* (options, state) {
  const programs = yield* programSet(state, KEPT);

  /** The scores of windows [windows, h, w, K]: the next is submitted before one is read. */
  const scoresOf = Effect.fnUntraced(function* ({ pixels, size }: ShownImage, { windows, window }: Windows) {
    const graph = scoresGraph(options, window);
    const shape = [windows.length, ...graph.outputs.logits.shape.slice(1)];
    const scores = new Float32Array(shape.reduce((product, length) => product * length));
    const each = scores.length / windows.length;
    let reading: Effect.Effect<void, RunError> = Effect.void;
    for (const [i, origin] of windows.entries()) {
      const program = yield* programs.get(`scores of ${window.join("×")}`, () => graph);
      const outputs = yield* program.run({ pixels: cut(pixels, size, origin, window) });
      yield* reading;
      reading = Effect.map(outputs, ({ logits }) => scores.set(logits, i * each));
    }
    yield* reading;
    return { scores, shape };
  });

  return Effect.fnUntraced(function* (image) {
    const windows = windowsOf(image.size, options);
    const { scores, shape } = yield* scoresOf(image, windows);
    const [height, width] = image.original;
    const rows = Math.min(height, Math.ceil(BAND / width));
    const { alignCorners } = options;
    const layout = { ...windows, image: image.size, original: image.original, rows, alignCorners };
    const key = `classes of ${
      [shape, image.size, image.original].map((size) => size.join("×")).join(" to ")
    }`;
    const labels = new Uint8Array(height * width);
    for (let first = 0; first < height; first += rows) {
      const program = yield* programs.get(key, () => classesGraph(shape, layout));
      const { classes } = yield* yield* program.run({ scores, first: Uint32Array.of(first) });
      labels.set(classes.subarray(0, (Math.min(first + rows, height) - first) * width), first * width);
    }
    return labels;
  });
});

const scoresGraph = (options: SegmenterOptions, [height, width]: PixelSize) => {
  const pixels = input("pixels", [1, height, width], "u32");
  const images = normalizeBytes(pixels, PIXEL_STATISTICS[options.pixelStatistics]);
  const { head: { logits } } = segmentor(student(new StateBuilder(), null), images, options);
  return { label: "the segmentor", outputs: { logits } };
};

const classesGraph = (shape: readonly number[], layout: WindowLayout) => ({
  label: "the classes of pixels",
  outputs: { classes: windowArgmax(input("scores", shape), input("first", [1], "u32"), layout) },
});

type Windows = Pick<WindowLayout, "windows" | "window">;

/**
 * The windows of an image, row by row. Those that would pass the border are moved back so as to end there; an image that is
 * smaller than a window is a window of its own size.
 */
export const windowsOf = (
  size: PixelSize,
  { testMode, window, stride }: Pick<SegmenterOptions, "testMode" | "window" | "stride">,
): Windows => {
  if (testMode === "whole") return { windows: [[0, 0]], window: size };
  const [tops, lefts] = [0, 1].map((axis) => origins(size[axis], window[axis], stride[axis]));
  return {
    windows: tops.flatMap((top) => lefts.map((left) => [top, left] as const)),
    window: [Math.min(window[0], size[0]), Math.min(window[1], size[1])],
  };
};

const origins = (length: number, window: number, stride: number): number[] => {
  const last = Math.max(length - window, 0);
  return Array.from({ length: Math.ceil(last / stride) + 1 }, (_, i) => Math.min(i * stride, last));
};

/** The pixels of a window; those of the whole image are not copied. */
const cut = (
  pixels: Uint32Array,
  [height, width]: PixelSize,
  [top, left]: readonly [number, number],
  [rows, columns]: PixelSize,
): Uint32Array => {
  if (rows === height && columns === width) return pixels;
  const result = new Uint32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const from = (top + row) * width + left;
    result.set(pixels.subarray(from, from + columns), row * columns);
  }
  return result;
};
