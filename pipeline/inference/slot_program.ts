/**
 * The slots of whole images: the teacher's score maps and, at the size of the image, the prototype with the highest
 * score at each pixel (docs/method.md, section 11).
 */
import { Effect, type Scope, Stream } from "effect";
import type { Picture } from "../../data/images/decode_image.ts";
import { release } from "../../data/images/release.ts";
import { argmaxMap, type MapSize } from "../../ops/argmax_map.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { type Shape, sizeOf } from "../../ops/graph/shape.ts";
import { input, type Tensor } from "../../ops/graph/tensor.ts";
import { normalizePixels } from "../../ops/image/normalize_pixels.ts";
import type { CollectiveError } from "../../ops/runtime/collective.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile, type DeviceState, type Program } from "../../ops/runtime/program.ts";
import { IMAGENET } from "../model/resnet.ts";
import { cosineScores } from "../model/slot_grouping.ts";
import { forward, type ModelOptions, student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { upload } from "../run/state.ts";
import type { StateValues } from "../run/state_layout.ts";
import { type Frame, framed } from "./framed.ts";
import type { FramedBatch } from "./framed_batches.ts";
import { pack } from "./packed_pictures.ts";

/** The teacher's scores [N, h, w, K] of images of 8 bits, u32 [N, H, W], with its running statistics. */
export const teacherScores = (state: StateBuilder, pictures: Tensor, model: ModelOptions): Tensor => {
  const { projections, prototypes } = forward(
    student(state, null),
    "k",
    normalizePixels(pictures, IMAGENET),
    model,
  );
  return cosineScores(projections, prototypes);
};

/** The teacher's parameters and statistics on the device, until the scope ends. Fails with a GpuError. */
export const uploadTeacher: (
  model: ModelOptions,
  values: StateValues,
) => Effect.Effect<DeviceState, GpuError, Gpu | Scope.Scope> = Effect.fnUntraced(function* (model, values) {
  const state = new StateBuilder();
  teacherScores(state, input("pictures", [1, 64, 64], "u32"), model);
  return yield* upload(state, values);
});

/** A program that runs a teacher on `batch` images of one size at a time. */
export interface SlotProgram {
  /** The shape of its input: [batch, H, W], a word a pixel. */
  readonly pictures: Shape;
  /** The shape of the teacher's scores: [batch, h, w, K], cosines of location and prototype. */
  readonly scores: Shape;
  /** Submits a batch, which may have fewer images; the inner effect waits for the output `values`. */
  readonly run: (pixels: Uint32Array) => ReturnType<Program["run"]>;
}

/**
 * The program from images to `values`: the teacher's scores or, if `slots` is a size, the numbers of the prototypes
 * with the highest score at each pixel, [batch, slots.height, slots.width]. It lives as long as the scope. Fails with
 * PlanError or GpuError.
 */
export const slotProgram: (
  model: ModelOptions,
  teacher: DeviceState,
  sizes: { readonly pictures: Shape; readonly slots?: MapSize },
) => Effect.Effect<SlotProgram, PlanError | GpuError, Gpu | Scope.Scope> = Effect.fn("slotProgram")(
  function* (
    model,
    teacher,
    { pictures: shape, slots },
  ) {
    const scores = teacherScores(new StateBuilder(), input("pictures", shape, "u32"), model);
    const values = slots === undefined ? scores : argmaxMap(scores, slots);
    const program = yield* compile({ label: "the slot maps", outputs: { values } }, teacher);
    return {
      pictures: shape,
      scores: scores.shape,
      run: (pixels) => {
        if (pixels.length === sizeOf(shape)) return program.run({ pictures: pixels });
        const full = new Uint32Array(sizeOf(shape)); // a last batch that is not full ends in zeros
        full.set(pixels);
        return program.run({ pictures: full });
      },
    } satisfies SlotProgram as SlotProgram;
  },
);

/** Images of a batch that `use` works on at a time. */
const AT_ONCE = 4;

/**
 * Runs a stream of batches through a program, and `use` on every image that could be decoded. While the device works
 * on a batch, the host works on the one before. Fails as the stream, the program and `use` do.
 */
export const runBatches: <E, R, E2, R2>(
  program: SlotProgram,
  batches: Stream.Stream<FramedBatch, E, R>,
  use: (image: PictureOutput) => Effect.Effect<void, E2, R2>,
) => Effect.Effect<void, E | E2 | GpuError | CollectiveError, R | R2> = Effect.fnUntraced(
  function* <E, R, E2, R2>(
    program: SlotProgram,
    batches: Stream.Stream<FramedBatch, E, R>,
    use: (image: PictureOutput) => Effect.Effect<void, E2, R2>,
  ) {
    const [, height, width] = program.pictures;
    const submit = Effect.fnUntraced(function* (batch: FramedBatch) {
      const outputs = yield* program.run(batch.pixels);
      return Effect.gen(function* () {
        const { values } = yield* outputs;
        const each = values.length / program.pictures[0];
        const good = Array.from(batch.problems.keys()).filter((i) => batch.problems[i] === null);
        yield* Effect.forEach(good, (i) =>
          use({
            place: batch.first + i,
            pixels: batch.pixels.subarray(i * height * width, (i + 1) * height * width),
            values: values.subarray(i * each, (i + 1) * each),
          }), { concurrency: AT_ONCE, discard: true });
        release(batch.pixels);
      });
    });
    let finish: Effect.Success<ReturnType<typeof submit>> = Effect.void as never;
    yield* Stream.runForEach(batches, (batch) =>
      Effect.gen(function* () {
        const next = yield* submit(batch);
        yield* finish;
        finish = next;
      }));
    yield* finish;
  },
);

/** One image and the program's output for it. The arrays are reused after `use`: copy what is needed for longer. */
export interface PictureOutput {
  /** The index in the list of images. */
  readonly place: number;
  /** [H, W], a word a pixel. */
  readonly pixels: Uint32Array;
  /** Scores [h, w, K] or slots [height, width]. */
  readonly values: Float32Array;
}

/** The slots of one image. */
export interface SlotMap {
  /** The image as the network sees it, S × S. */
  readonly picture: Picture;
  /** The number of the prototype with the highest score at each pixel, [S, S]. */
  readonly slots: Float32Array;
}

/** Computes the slot maps of images. */
export type SlotMapper = (
  images: readonly Picture[],
) => Effect.Effect<readonly SlotMap[], GpuError | CollectiveError>;

/**
 * A function from images to their slot maps, `batch` images at a time, by the teacher whose tensors are among
 * `values`, as in a checkpoint. The program lives as long as the scope. Fails with PlanError or GpuError.
 */
export const slotMapper: (
  model: ModelOptions,
  values: StateValues,
  frame: Frame & { readonly batch: number },
) => Effect.Effect<SlotMapper, PlanError | GpuError, Gpu | Scope.Scope> = Effect.fn("slotMapper")(function* (
  model,
  values,
  { batch, ...frame },
) {
  const size = frame.crop;
  const program = yield* slotProgram(model, yield* uploadTeacher(model, values), {
    pictures: [batch, size, size],
    slots: { width: size, height: size },
  });
  return Effect.fnUntraced(function* (images: readonly Picture[]) {
    const shown = images.map((image) => framed(image, frame));
    const maps: SlotMap[] = [];
    yield* runBatches(program, packedBatches(shown, batch), ({ place, values }) =>
      Effect.sync(() => {
        maps.push({ picture: shown[place], slots: values.slice() });
      }));
    return maps;
  });
});

/** Decoded images of one size as batches of `batch` images. */
export const packedBatches = (images: readonly Picture[], batch: number): Stream.Stream<FramedBatch> =>
  Stream.range(0, Math.ceil(images.length / batch) - 1).pipe(Stream.map((i) => {
    const part = images.slice(i * batch, (i + 1) * batch);
    const words = part[0].width * part[0].height;
    const pixels = new Uint32Array(part.length * words);
    part.forEach((image, j) => pack(image, pixels.subarray(j * words, (j + 1) * words)));
    const sizes = Uint32Array.from(part.flatMap(({ width, height }) => [width, height]));
    return { first: i * batch, pixels, sizes, problems: part.map(() => null) };
  }));
