import assert from "node:assert/strict";
import { draws, recorded, recordedPicture, size } from "../../pipeline/verify/_test_recording.ts";
import { bicubicTaps, cropResize } from "./resample.ts";

Deno.test("cropResize() equals Pillow's crop and resize bit for bit", () => {
  draws.forEach(({ image, views }, n) =>
    views.forEach(({ box }, side) => {
      const { rgb } = cropResize(recordedPicture(`decoded/${image}`), box, size);
      assert.deepEqual(rgb, recorded(`draw${n}/view${side}/0_crop`).data);
    })
  );
});

Deno.test("bicubicTaps() weigh the same at every output and stay inside the axis", () => {
  for (const [length, outputs] of [[1, 7], [5, 5], [9, 40], [200, 40], [1000, 33]]) {
    const taps = bicubicTaps(length, outputs);
    const stride = taps.length / outputs;
    for (let output = 0; output < outputs; output++) {
      const [first, count, ...weights] = taps.subarray(output * stride, (output + 1) * stride);
      assert.ok(count >= 1 && first + count <= length);
      const sum = weights.slice(0, count).reduce((a, b) => a + b);
      assert.ok(Math.abs(sum - 2 ** 22) <= count, `output ${output} of ${outputs}: ${sum}`); // rounding
    }
  }
  assert.throws(() => bicubicTaps(100, 10, 39), /need 40 taps/);
});
