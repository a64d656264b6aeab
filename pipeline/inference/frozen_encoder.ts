/** Encoders to be evaluated: the one in a file, and the same architecture before any training. */
import { Effect } from "effect";
import type { FormatError } from "../../data/files/format_error.ts";
import { input } from "../../ops/graph/tensor.ts";
import { encoder, type EncoderOptions } from "../model/resnet.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { initialState } from "../run/initial_state.ts";
import { readState } from "../run/state.ts";
import { checkpointShapes, type StateTensor, type StateValues } from "../run/state_layout.ts";
import { type Which, wholeEncoderOf } from "../weights/encoder.ts";
import { imageSizeOf } from "../weights/teacher.ts";
import type { WeightsFile } from "../weights/weights_file.ts";

/** An encoder that is not trained any further. */
export interface FrozenEncoder {
  /** Its architecture. */
  readonly options: EncoderOptions;
  /** Its values under torchvision's names. */
  readonly values: StateValues;
}

/**
 * The encoder in a file, and the side of the views that it was trained on, in pixels. Fails with a `FormatError` where
 * the file has no such encoder, or a tensor is missing, of another shape, or not finite.
 */
export const frozenEncoder: (
  weights: WeightsFile,
  which: Which,
) => Effect.Effect<FrozenEncoder & { readonly imageSize: number }, FormatError> = Effect.fn("frozenEncoder")(
  function* (weights, which) {
    const { tensors: stored, options } = yield* wholeEncoderOf(weights, which);
    const counters = new Map<string, StateTensor>();
    for (const [name, shape] of checkpointShapes(declared(options))) {
      // Counters of batches do not matter in evaluation, and some files leave them out.
      if (!stored.has(name)) counters.set(name, { shape, data: new Float32Array(1) });
    }
    const values = new Map([...yield* readState(weights.file, stored), ...counters]);
    return { options, values, imageSize: imageSizeOf(weights) };
  },
);

/** An encoder with the initial values of a seed. */
export const untrainedEncoder = (options: EncoderOptions, seed: number): FrozenEncoder => ({
  options,
  values: initialState(declared(options), seed),
});

const declared = (options: EncoderOptions): StateBuilder => {
  const state = new StateBuilder();
  encoder(student(state, null), input("images", [1, 64, 64, 3]), options);
  return state;
};
