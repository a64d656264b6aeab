/**
 * What the slots of whole pictures are: the teacher's score maps and, at the picture's size, the prototype that wins each
 * pixel (method.md, section 11).
 */
import { Effect } from "effect";
import type { Picture } from "../../data/decode_image.ts";
import { compile } from "../../ops/compile.ts";
import { normalizePixels } from "../../ops/image/normalize_pixels.ts";
import { input, sizeOf, type Tensor } from "../../ops/tensor.ts";
import { winnerMap } from "../../ops/winner_map.ts";
import { IMAGENET } from "../augment.ts";
import { forward, type ModelOptions } from "../forward.ts";
import { type Network, StateBuilder } from "../model/network.ts";
import { cosineScores } from "../slot_grouping.ts";
import { type StateValues, upload } from "../state.ts";
import { type Frame, framed } from "./framed.ts";

/** Pictures of 8 bits, u32 [N, S, S], to the teacher's scores [N, h, w, K], normalised by its running statistics. */
export const teacherScores = (state: StateBuilder, pictures: Tensor, model: ModelOptions): Tensor => {
  const network: Network = { state, prefix: "", value: (declared) => declared, training: null };
  const { projections, prototypes } = forward(network, "k", normalizePixels(pictures, IMAGENET), model);
  return cosineScores(projections, prototypes);
};

/** One picture as its slots see it. */
export interface SlotMap {
  readonly picture: Picture; // as the network was shown it, S × S
  readonly scores: Float32Array; // [h, w, K], cosine of location and prototype
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
  const state = new StateBuilder();
  const scores = teacherScores(state, input("pictures", [batch, size, size], "u32"), model);
  const slots = winnerMap(scores, { height: size, width: size });
  const program = yield* compile(
    { label: "the slot maps", outputs: { scores, slots } },
    yield* upload(state, values),
  );

  const mapBatch = Effect.fnUntraced(function* (pictures: readonly Picture[]) {
    const shown = pictures.map((picture) => framed(picture, frame));
    const result = yield* yield* program.run({ pictures: packed(shown, batch * size * size) });
    const part = (all: Float32Array, each: number, i: number) => all.slice(i * each, (i + 1) * each);
    return shown.map((picture, i): SlotMap => ({
      picture,
      scores: part(result.scores, sizeOf(scores.shape) / batch, i),
      slots: part(result.slots, size * size, i),
    }));
  });

  return Effect.fnUntraced(function* (pictures: readonly Picture[]) {
    const batches = Array.from(
      { length: Math.ceil(pictures.length / batch) },
      (_, i) => pictures.slice(i * batch, (i + 1) * batch),
    );
    return (yield* Effect.forEach(batches, mapBatch)).flat();
  });
});

/** The pixels of pictures one after the other, a word each: r | g << 8 | b << 16. A last batch that is not full ends in zeros. */
const packed = (pictures: readonly Picture[], words: number): Uint32Array => {
  const pixels = new Uint32Array(words);
  let at = 0;
  for (const { rgb } of pictures) {
    for (let i = 0; i < rgb.length; i += 3) pixels[at++] = rgb[i] | rgb[i + 1] << 8 | rgb[i + 2] << 16;
  }
  return pixels;
};
