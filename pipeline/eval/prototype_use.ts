/** How a teacher uses its prototypes. */
import { Effect } from "effect";
import type { PlanError } from "../../ops/compiler/limits.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import type { RunError } from "../inference/descriptors.ts";
import { evaluationFrame } from "../inference/framed.ts";
import { framedBatches } from "../inference/framed_batches.ts";
import { runBatches, slotProgram, uploadTeacher } from "../inference/slot_program.ts";
import type { ModelOptions } from "../model/slotcon_network.ts";
import { leftOut, type TooManyBadImagesError } from "../run/bad_images.ts";
import type { StateValues } from "../run/state_layout.ts";
import type { WorkerError } from "../run/worker.ts";

/** The use of prototypes on some images. */
export interface PrototypeUse {
  /** The number of images. */
  readonly pictures: number;
  /** Why each of the others cannot be decoded. */
  readonly leftOut: readonly string[];
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
 * cropped as in published evaluations; of those that cannot be decoded, which are left out, there may be the share
 * `maxBadImages`. Fails with TooManyBadImagesError, WorkerError, PlanError, or as running a program does.
 */
export const prototypeUse: (
  model: ModelOptions & { readonly imageSize: number },
  values: StateValues,
  files: readonly string[],
  maxBadImages: number,
) => Effect.Effect<PrototypeUse, TooManyBadImagesError | WorkerError | PlanError | RunError, Gpu> = Effect.fn(
  "prototypeUse",
)(
  function* (model, values, files, maxBadImages) {
    const frame = evaluationFrame(model.imageSize);
    const size = { width: frame.crop, height: frame.crop };
    const program = yield* slotProgram(model, yield* uploadTeacher(model, values), {
      pictures: [BATCH, size.height, size.width],
      slots: size,
    });
    const bad = leftOut(files, maxBadImages);
    const wins = new Float64Array(model.numPrototypes);
    let pictures = 0;
    yield* runBatches(
      program,
      framedBatches(files, { batch: BATCH, frame, bad }),
      ({ values: slots }) =>
        Effect.sync(() => {
          slots.forEach((prototype) => wins[prototype]++);
          pictures++;
        }),
    );
    const total = wins.reduce((sum, count) => sum + count, 0);
    const shares = Array.from(wins, (count) => count / total);
    const entropy = shares.reduce((sum, share) => share > 0 ? sum - share * Math.log(share) : sum, 0);
    return {
      pictures,
      leftOut: bad.reasons(),
      shares,
      live: shares.filter((share) => share > 0).length,
      effective: Math.exp(entropy),
    } satisfies PrototypeUse as PrototypeUse;
  },
  Effect.scoped,
);
