/** Descriptors of images for classifiers: numbers for a whole image, or for each cell of a grid. */
import { Effect, type Scope } from "effect";
import { div } from "../../ops/arithmetic.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { input, reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { normalizePixels } from "../../ops/image/normalize_pixels.ts";
import { columnSums } from "../../ops/reduce.ts";
import type { CollectiveError } from "../../ops/runtime/collective.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import { encoder, IMAGENET } from "../model/resnet.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { upload } from "../run/state.ts";
import type { FrozenEncoder } from "./frozen_encoder.ts";

/** A function from images to numbers. */
export interface Descriptor {
  /** Cells on each side of the grid; 1 where an image is described as a whole. */
  readonly grid: number;
  /** Numbers of each cell. */
  readonly channels: number;
  /** `count` images, u32 [count, S, S] with a word a pixel, to [count, grid, grid, channels]. */
  readonly describe: (pixels: Uint32Array, count: number) => Effect.Effect<Float32Array, RunError>;
}

/** A descriptor with a name. */
export interface NamedDescriptor {
  /** Its name in tables. */
  readonly method: string;
  /** The descriptor. */
  readonly descriptor: Descriptor;
}

/** How running a program can fail. */
export type RunError = GpuError | CollectiveError;

/** How an encoder describes images. */
export interface DescriptorOptions {
  /** The side of the images, in pixels. */
  readonly imageSize: number;
  /** Images at a time. */
  readonly batch: number;
  /** Features of each cell, or their mean over the image. */
  readonly per: "cell" | "picture";
}

/**
 * Describes images by the last feature map of an encoder, with its running statistics. The program lives as long as the
 * scope. Fails with PlanError or GpuError.
 */
export const encoderDescriptor: (
  encoder: FrozenEncoder,
  options: DescriptorOptions,
) => Effect.Effect<Descriptor, GpuError | PlanError, Gpu | Scope.Scope> = Effect.fn("encoderDescriptor")(
  function* (
    { options, values },
    { imageSize: S, batch, per },
  ) {
    const state = new StateBuilder();
    const images = normalizePixels(input("pictures", [batch, S, S], "u32"), IMAGENET);
    const map = encoder(student(state, null), images, options);
    const features = per === "cell" ? map : pooled(map);
    const program = yield* compile(
      { label: "the encoder", outputs: { features } },
      yield* upload(state, values),
    );
    const grid = per === "cell" ? map.shape[1] : 1;
    const channels = map.shape[3];
    const describeBatch = Effect.fnUntraced(function* (pixels: Uint32Array) {
      const full = pixels.length === batch * S * S ? pixels : new Uint32Array(batch * S * S);
      if (full !== pixels) full.set(pixels);
      return (yield* yield* program.run({ pictures: full })).features;
    });
    return {
      grid,
      channels,
      describe: Effect.fnUntraced(function* (pixels, count) {
        const each = grid * grid * channels;
        const result = new Float32Array(count * each);
        for (let first = 0; first < count; first += batch) {
          const some = Math.min(batch, count - first);
          const features = yield* describeBatch(pixels.subarray(first * S * S, (first + some) * S * S));
          result.set(features.subarray(0, some * each), first * each);
        }
        return result;
      }),
    };
  },
);

/** [N, h, w, C] to their means [N, C]. */
const pooled = (map: Tensor): Tensor => {
  const [N, h, w, C] = map.shape;
  return reshape(div(columnSums([reshape(map, [N, h * w, C])]), h * w), [N, C]);
};

/** Levels of each colour channel that histograms tell apart. */
const LEVELS = 4;
const BINS = LEVELS ** 3;

/**
 * Describes images of side `S` without learning: the share of each colour in each quarter of an image. Square roots of
 * shares, so that the product of two such rows is their Bhattacharyya coefficient.
 */
export const colorHistograms = (S: number): Descriptor => ({
  grid: 1,
  channels: 4 * BINS,
  describe: (pixels, count) =>
    Effect.sync(() => {
      const result = new Float32Array(count * 4 * BINS);
      for (let i = 0; i < count * S * S; i++) {
        const [x, y] = [i % S, Math.floor(i / S) % S];
        const quarter = 2 * Number(2 * y >= S) + Number(2 * x >= S);
        const bin = [0, 8, 16].reduce(
          (sum, shift) => sum * LEVELS + ((pixels[i] >> shift & 255) * LEVELS >> 8),
          0,
        );
        result[(Math.floor(i / S / S) * 4 + quarter) * BINS + bin]++;
      }
      return result.map((pixels) => Math.sqrt(pixels / S / S));
    }),
});

/** Describes cells without learning: mean and deviation of each colour channel in a cell, and the cell's position. */
export const cellColors = (S: number, grid: number): Descriptor => ({
  grid,
  channels: 11,
  describe: (pixels, count) =>
    Effect.sync(() => {
      const result = new Float32Array(count * grid * grid * 11);
      const edge = (cell: number) => Math.round(cell * S / grid);
      for (let cell = 0; cell < count * grid * grid; cell++) {
        const [column, row] = [cell % grid, Math.floor(cell / grid) % grid];
        const image = Math.floor(cell / grid / grid) * S * S;
        const sums = new Float64Array(6);
        for (let y = edge(row); y < edge(row + 1); y++) {
          for (let x = edge(column); x < edge(column + 1); x++) {
            const word = pixels[image + y * S + x];
            for (let c = 0; c < 3; c++) {
              const value = (word >> 8 * c & 255) / 255;
              sums[c] += value;
              sums[3 + c] += value * value;
            }
          }
        }
        const area = (edge(row + 1) - edge(row)) * (edge(column + 1) - edge(column));
        const means = sums.map((sum) => sum / area);
        const deviations = [0, 1, 2].map((c) => Math.sqrt(Math.max(0, means[3 + c] - means[c] ** 2)));
        const [x, y] = [(column + 0.5) / grid, (row + 0.5) / grid];
        result.set([...means.subarray(0, 3), ...deviations, x, y, x * x, y * y, x * y], 11 * cell);
      }
      return result;
    }),
});
