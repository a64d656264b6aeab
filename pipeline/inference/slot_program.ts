/**
 * What the slots of whole pictures are: the teacher's score maps and, at the picture's size, the prototype that wins each
 * pixel (docs/method.md, section 11).
 */
import { Effect, Stream } from "effect";
import type { Picture } from "../../data/images/decode_image.ts";
import { release } from "../../data/images/release.ts";
import { argmaxMap, type MapSize } from "../../ops/argmax_map.ts";
import { type Shape, sizeOf } from "../../ops/graph/shape.ts";
import { input, type Tensor } from "../../ops/graph/tensor.ts";
import { normalizePixels } from "../../ops/image/normalize_pixels.ts";
import { compile, type DeviceState } from "../../ops/runtime/program.ts";
import { IMAGENET } from "../model/resnet.ts";
import { cosineScores } from "../model/slot_grouping.ts";
import { forward, type ModelOptions, student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { upload } from "../run/state.ts";
import type { StateValues } from "../run/state_layout.ts";
import { type Frame, framed } from "./framed.ts";
import type { FramedBatch } from "./framed_batches.ts";
import { pack } from "./packed_pictures.ts";

/** Pictures of 8 bits, u32 [N, H, W], to the teacher's scores [N, h, w, K], normalised by its running statistics. */
export const teacherScores = (state: StateBuilder, pictures: Tensor, model: ModelOptions): Tensor => {
  const { projections, prototypes } = forward(
    student(state, null),
    "k",
    normalizePixels(pictures, IMAGENET),
    model,
  );
  return cosineScores(projections, prototypes);
};

/** The teacher's parameters and statistics on the device, until the scope ends. */
export const uploadTeacher = Effect.fnUntraced(function* (model: ModelOptions, values: StateValues) {
  const state = new StateBuilder();
  teacherScores(state, input("pictures", [1, 64, 64], "u32"), model);
  return yield* upload(state, values);
});

/** What a teacher makes of `batch` pictures of one size at a time. */
export interface SlotProgram {
  readonly pictures: Shape; // [batch, H, W], a word a pixel
  readonly scores: Shape; // [batch, h, w, K], cosine of location and prototype
  /** Submits a batch, which may be less than full; the inner effect waits for what it gives. */
  readonly run: (
    pixels: Uint32Array,
  ) => ReturnType<Effect.Success<ReturnType<typeof compile>>["run"]>;
}

/**
 * The program from pictures to `scores` or, at the size of `slots`, to the prototypes that win each pixel, `slots`
 * [batch, height, width]. It lives as long as the scope. Fails with PlanError or GpuError.
 */
export const slotProgram = Effect.fn("slotProgram")(function* (
  model: ModelOptions,
  teacher: DeviceState,
  { pictures: shape, slots }: { readonly pictures: Shape; readonly slots?: MapSize },
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
});

/** Pictures of a batch that are looked at at a time; each is begun after the one before it. */
const AT_ONCE = 4;

/**
 * Runs a stream of batches through a program; `use` gets every picture that could be decoded, with its pixels and what
 * the program gives for it. While the device works on a batch, the host looks at the one before.
 */
export const runBatches = Effect.fnUntraced(function* <E, R, E2, R2>(
  program: SlotProgram,
  batches: Stream.Stream<FramedBatch, E, R>,
  use: (picture: PictureOutput) => Effect.Effect<void, E2, R2>,
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
});

/** One picture as the program saw it. The arrays are parts of larger ones that are given back: copy what stays. */
export interface PictureOutput {
  readonly place: number; // in the list of pictures
  readonly pixels: Uint32Array; // [H, W], a word a pixel
  readonly values: Float32Array; // scores [h, w, K] or slots [height, width]
}

/** One picture as its slots see it. */
export interface SlotMap {
  readonly picture: Picture; // as the network was shown it, S × S
  readonly slots: Float32Array; // [S, S], number of the prototype that wins the pixel
}

/**
 * A function from pictures to their slot maps, `batch` at a time, with the teacher in `values` (a checkpoint's tensors;
 * others in it are not looked at). The program lives as long as the scope. Fails with PlanError or GpuError.
 */
export const slotMapper = Effect.fn("slotMapper")(function* (
  model: ModelOptions,
  values: StateValues,
  { batch, ...frame }: Frame & { readonly batch: number },
) {
  const size = frame.crop;
  const program = yield* slotProgram(model, yield* uploadTeacher(model, values), {
    pictures: [batch, size, size],
    slots: { width: size, height: size },
  });
  return Effect.fnUntraced(function* (pictures: readonly Picture[]) {
    const shown = pictures.map((picture) => framed(picture, frame));
    const maps: SlotMap[] = [];
    yield* runBatches(program, packedBatches(shown, batch), ({ place, values }) =>
      Effect.sync(() => {
        maps.push({ picture: shown[place], slots: values.slice() });
      }));
    return maps;
  });
});

/** Pictures that are there already, all of one size, `batch` at a time. */
export const packedBatches = (pictures: readonly Picture[], batch: number): Stream.Stream<FramedBatch> =>
  Stream.range(0, Math.ceil(pictures.length / batch) - 1).pipe(Stream.map((i) => {
    const part = pictures.slice(i * batch, (i + 1) * batch);
    const words = part[0].width * part[0].height;
    const pixels = new Uint32Array(part.length * words);
    part.forEach((picture, j) => pack(picture, pixels.subarray(j * words, (j + 1) * words)));
    return { first: i * batch, pixels, problems: part.map(() => null) };
  }));
