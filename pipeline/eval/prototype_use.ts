import { Effect } from "effect";
import { readPicture } from "../../data/images/decode_image.ts";
import { evaluationFrame } from "../inference/framed.ts";
import { slotMapper } from "../inference/slot_program.ts";
import type { ModelOptions } from "../model/slotcon_network.ts";
import type { StateValues } from "../run/state_layout.ts";

export interface PrototypeUse {
  readonly pictures: number;
  /** Of all pixels, the share that each prototype wins. */
  readonly shares: readonly number[];
  /** Prototypes that win somewhere. */
  readonly live: number;
  /** exp of the entropy of the shares: how many prototypes, used alike, would be as mixed. 1 is a collapse. */
  readonly effective: number;
}

const BATCH = 8;

/**
 * How the teacher in `values` uses its prototypes on pictures (paths), each resized and cropped to the size that the run
 * had, as published evaluations do. Fails with DecodeError, PlanError or GpuError.
 */
export const prototypeUse = Effect.fn("prototypeUse")(function* (
  model: ModelOptions & { readonly imageSize: number },
  values: StateValues,
  files: readonly string[],
) {
  const map = yield* slotMapper(model, values, { ...evaluationFrame(model.imageSize), batch: BATCH });
  const wins = new Float64Array(model.numPrototypes);
  for (let at = 0; at < files.length; at += BATCH) {
    const pictures = yield* Effect.forEach(files.slice(at, at + BATCH), readPicture, { concurrency: 2 });
    for (const { slots } of yield* map(pictures)) slots.forEach((prototype) => wins[prototype]++);
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
}, Effect.scoped);
