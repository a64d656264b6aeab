/** How a teacher uses its prototypes. */
import { Effect } from "effect";
import { type DecodeError, readPicture } from "../../data/images/decode_image.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import type { RunError } from "../inference/descriptors.ts";
import { evaluationFrame } from "../inference/framed.ts";
import { slotMapper } from "../inference/slot_program.ts";
import type { ModelOptions } from "../model/slotcon_network.ts";
import type { StateValues } from "../run/state_layout.ts";

/** The use of prototypes on some images. */
export interface PrototypeUse {
  /** The number of images. */
  readonly pictures: number;
  /** The share of all pixels at which each prototype has the highest score: 0 … 1. */
  readonly shares: readonly number[];
  /** The number of prototypes with a share above 0. */
  readonly live: number;
  /** exp of the entropy of the shares: the number of equally used prototypes with the same entropy. 1 is a collapse. */
  readonly effective: number;
}

/** Images at a time. */
const BATCH = 8;

/**
 * The use of prototypes on images (paths) by the teacher whose tensors are among `values`. Images are resized and
 * cropped as in published evaluations. Fails with DecodeError, PlanError, or as running a program does.
 */
export const prototypeUse: (
  model: ModelOptions & { readonly imageSize: number },
  values: StateValues,
  files: readonly string[],
) => Effect.Effect<PrototypeUse, DecodeError | PlanError | RunError, Gpu> = Effect.fn("prototypeUse")(
  function* (
    model,
    values,
    files,
  ) {
    const map = yield* slotMapper(model, values, { ...evaluationFrame(model.imageSize), batch: BATCH });
    const wins = new Float64Array(model.numPrototypes);
    for (let at = 0; at < files.length; at += BATCH) {
      const images = yield* Effect.forEach(files.slice(at, at + BATCH), readPicture, { concurrency: 2 });
      for (const { slots } of yield* map(images)) slots.forEach((prototype) => wins[prototype]++);
    }
    const total = wins.reduce((sum, count) => sum + count, 0);
    const shares = Array.from(wins, (count) => count / total);
    const entropy = shares.reduce((sum, share) => share > 0 ? sum - share * Math.log(share) : sum, 0);
    return {
      pictures: files.length,
      shares,
      live: shares.filter((share) => share > 0).length,
      effective: Math.exp(entropy),
    } satisfies PrototypeUse as PrototypeUse;
  },
  Effect.scoped,
);
