/** Recorded operations on pictures, one by one, for the tests of the ops that reproduce them. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import type { Picture } from "../../data/images/decode_image.ts";
import type { ViewDraw } from "../../pipeline/pretrain/draws.ts";
import { packBatch } from "../../pipeline/pretrain/pack.ts";
import { draws, recorded, recordedPicture, size } from "../../pipeline/verify/_test_recording.ts";
import type { Stage } from "../../pipeline/verify/read_augment_recording.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { evaluate } from "../runtime/program.ts";

const untouched: ViewDraw = {
  box: [0, 0, size, size],
  flip: false,
  jitter: [],
  gray: false,
  blur: null,
  solarize: false,
};

/** A view that has only the operation `stage` of `view`. */
const only = (stage: Stage, view: ViewDraw): ViewDraw => ({
  ...untouched,
  ...(stage === "blur" ? { blur: view.blur } : stage === "solarize" ? { solarize: true } : {}),
  gray: stage === "gray",
  jitter: view.jitter.filter(([kind]) => kind === stage),
});

/** All recorded operations of the kind `stage`: the pictures before and after them, and views that do nothing else. */
export const recordedSteps = (stage: Stage) =>
  draws.flatMap(({ views, stages }, n) =>
    views.flatMap((view, side) => {
      const at = stages[side].indexOf(stage);
      if (at < 0) return [];
      const tensor = (i: number) => `draw${n}/view${side}/${i}_${stages[side][i]}`;
      return [{
        before: recordedPicture(tensor(at - 1)),
        after: recorded(tensor(at)).data,
        view: only(stage, view),
      }];
    })
  );

/** Square pictures as the ops take them, u32 [N, S, S]. */
export const asPictures = (pictures: readonly Picture[]): Tensor => {
  const [{ width }] = pictures;
  const words = pictures.flatMap(({ rgb }) =>
    Array.from(
      { length: rgb.length / 3 },
      (_, i) => rgb[3 * i] | (rgb[3 * i + 1] << 8) | (rgb[3 * i + 2] << 16),
    )
  );
  return constant(Uint32Array.from(words), [pictures.length, width, width]);
};

/** The table rows of views without a box, u32 [N, words]. */
export const asTable = (views: readonly ViewDraw[]): Tensor => {
  const pixel = { width: 1, height: 1, rgb: new Uint8Array(3) };
  const samples = views.map((view) => ({
    picture: pixel,
    draw: {
      views: [{ ...view, box: [0, 0, 1, 1] }, { ...untouched, box: [0, 0, 1, 1] }] as const,
      coords: [[0, 0, 1, 1], [0, 0, 1, 1]] as const,
    },
  }));
  const packed = packBatch(samples, { imageSize: 1, maxTaps: 4, capacity: 8 * views.length });
  const words = packed.views.length / (2 * views.length);
  return constant(packed.views.slice(0, views.length * words), [views.length, words]);
};

/** The R, G, B values of a picture tensor; its pixels come back as f32, which holds 24 bits exactly. */
export const evaluatePictures = (pictures: Tensor) =>
  evaluate(pictures).pipe(
    Effect.map((pixels) =>
      Uint8Array.from({ length: 3 * pixels.length }, (_, i) => pixels[Math.floor(i / 3)] >>> (8 * (i % 3)))
    ),
  );

/** Fails unless `op` turns every recorded picture before the operation `stage` into the one after it, bit for bit. */
export const assertEqualsRecorded = Effect.fnUntraced(function* (
  stage: Stage,
  op: (pictures: Tensor, views: Tensor) => Tensor,
) {
  const steps = recordedSteps(stage);
  const got = yield* evaluatePictures(
    op(asPictures(steps.map(({ before }) => before)), asTable(steps.map(({ view }) => view))),
  );
  steps.forEach(({ after }, i) => {
    const mine = got.subarray(i * after.length, (i + 1) * after.length);
    const different = mine.filter((value, at) => value !== after[at]).length;
    assert.equal(different, 0, `${stage} ${i}: ${different} of ${after.length} values differ`);
  });
});
