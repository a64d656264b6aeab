import assert from "node:assert/strict";
import type { Box } from "../../data/images/resample.ts";
import { type Random, randomStream } from "../../data/random/random.ts";
import { draws, recorded } from "../verify/_test_recording.ts";
import { drawTwoCrops, sharedRegion, type TwoCropDraw } from "./draws.ts";

const many = (count: number, size: { width: number; height: number }, minScale = 0.08): TwoCropDraw[] =>
  Array.from({ length: count }, (_, key) => drawTwoCrops(randomStream(key), size, { minScale }));

Deno.test("sharedRegion() equals the recorded coordinates bit for bit", () => {
  draws.forEach(({ views }, n) => {
    assert.deepEqual(sharedRegion(views).flat(), [...recorded(`draw${n}/coords`).data]);
    const [first, second] = views;
    const unflipped = sharedRegion([{ ...first, flip: false }, { ...second, flip: false }]);
    assert.deepEqual(unflipped.flat(), [...recorded(`draw${n}/coords_unflipped`).data]);
  });
});

Deno.test("drawTwoCrops() draws boxes inside the picture with the areas and shapes asked for", () => {
  const [width, height, minScale] = [640, 480, 0.2];
  let area = 0, logAspect = 0;
  const views = many(4000, { width, height }, minScale).map(({ views }) => views[0]);
  for (const { box: [top, left, h, w] } of views) {
    assert.ok(top >= 0 && left >= 0 && top + h <= height && left + w <= width);
    assert.ok(w * h > 0.99 * minScale * width * height && w / h > 0.74 && w / h < 1.35);
    area += w * h / (width * height) / views.length;
    logAspect += Math.log(w / h) / views.length;
  }
  // If every box did fit, these were 0.6 and 0: but large boxes and tall ones often do not.
  assert.ok(area > 0.47 && area < 0.52, `mean area ${area}`);
  assert.ok(logAspect > 0 && logAspect < 0.1, `mean logarithm of the aspect ${logAspect}`);
});

Deno.test("drawTwoCrops() gives up on overlap after ten second boxes that do not", () => {
  const size = { width: 400, height: 300 };
  assert.ok(many(3000, size).every(({ coords: [[x1, y1, x2, y2]] }) => x1 < x2 && y1 < y2));
  // Every box as small as may be; the first one at one corner, all others at the opposite corner.
  let placed = 0;
  const opposite: Random = {
    uniform: (low = 0) => low,
    integer: (bound) => placed++ < 2 ? 0 : bound - 1,
  };
  const { views, coords } = drawTwoCrops(opposite, size, { minScale: 0.01 });
  assert.deepEqual(views.map(({ box }) => box), [[0, 0, 40, 30], [260, 370, 40, 30]]);
  assert.ok(coords[0][2] < coords[0][0] && coords[0][3] < coords[0][1]);
  assert.ok(placed >= 2 * 12, "first box, ten tries, unconditioned box");
});

Deno.test("drawTwoCrops() takes the central box where ten tries do not fit", () => {
  const boxes = (width: number, height: number) =>
    new Set(many(20, { width, height }, 0.9).map(({ views: [{ box }] }) => box.join()));
  const box = (...box: Box) => new Set([box.join()]);
  assert.deepEqual(boxes(30, 900), box(430, 0, 40, 30));
  assert.deepEqual(boxes(901, 30), box(0, 430, 30, 40));
  assert.deepEqual(boxes(1, 1), box(0, 0, 1, 1));
});

Deno.test("drawTwoCrops() applies each operation as often and as strongly as the method says", () => {
  const drawn = many(4000, { width: 64, height: 64 });
  for (const side of [0, 1]) {
    const views = drawn.map(({ views }) => views[side]);
    const share = (what: string, holds: (view: typeof views[number]) => boolean, want: number) => {
      const got = views.filter(holds).length / views.length;
      assert.ok(Math.abs(got - want) < 0.03, `view ${side}: ${what} in ${got}, not in ${want}`);
    };
    share("flip", ({ flip }) => flip, 0.5);
    share("jitter", ({ jitter }) => jitter.length === 4, 0.8);
    share("gray", ({ gray }) => gray, 0.2);
    share("blur", ({ blur }) => blur !== null, [1, 0.1][side]);
    share("strong blur", ({ blur }) => blur !== null && blur > 1.05, [0.5, 0.05][side]);
    share("solarize", ({ solarize }) => solarize, [0, 0.2][side]);
    const ranges = { brightness: [0.6, 1.4], contrast: [0.6, 1.4], saturation: [0.8, 1.2], hue: [-0.1, 0.1] };
    for (const [kind, [low, high]] of Object.entries(ranges)) {
      share(`${kind} first`, ({ jitter }) => jitter[0]?.[0] === kind, 0.2);
      share(`${kind} last`, ({ jitter }) => jitter[3]?.[0] === kind, 0.2);
      const factors = views.flatMap(({ jitter }) => jitter.filter(([k]) => k === kind).map(([, f]) => f));
      const lowest = Math.min(...factors), highest = Math.max(...factors);
      assert.ok(lowest >= low && lowest < low + 0.01 && highest <= high && highest > high - 0.01, kind);
    }
  }
});
