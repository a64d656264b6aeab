import { numbers } from "../ops/_test_kit.ts";
import { constant } from "../ops/graph/tensor.ts";
import { roiAlign } from "../ops/roi_align.ts";
import { opBench } from "./_kit.ts";

// Score maps of both views of 64 pictures of 224 pixels.
const N = 128, SIDE = 7, K = 256;
const size = N * SIDE * SIDE * K;

opBench(`RoI align ${N}×${SIDE}²×${K}`, { bytes: 4 * 2 * size }, () => {
  const x = numbers(size, 1);
  const boxes = numbers(4 * N, 2).map((value, at) => (at % 4 < 2 ? 0.25 : 0.75) + value / 4);
  const flips = numbers(N, 3).map((value) => value > 0 ? 1 : 0);

  /** Where along an axis the bin's one sample lies, between pixels. */
  const place = (low: number, high: number, bin: number) =>
    Math.min(Math.max(low * SIDE - 0.5 + (bin + 0.5) * (high - low), 0), SIDE - 1);
  const expected = (at: number) => {
    const k = at % K, column = Math.floor(at / K) % SIDE, i = Math.floor(at / K / SIDE) % SIDE;
    const n = Math.floor(at / K / SIDE / SIDE);
    const [x1, y1, x2, y2] = boxes.subarray(4 * n);
    const h = place(y1, y2, i), w = place(x1, x2, flips[n] ? SIDE - 1 - column : column);
    let sum = 0;
    for (const row of [Math.floor(h), Math.ceil(h)]) {
      for (const across of [Math.floor(w), Math.ceil(w)]) {
        const share = (row === h ? 0.5 : 1 - Math.abs(row - h)) *
          (across === w ? 0.5 : 1 - Math.abs(across - w));
        sum += share * x[((n * SIDE + row) * SIDE + across) * K + k];
      }
    }
    return sum;
  };
  return [{
    result: roiAlign(constant(x, [N, SIDE, SIDE, K]), constant(boxes, [N, 4]), constant(flips)),
    expected,
  }];
});
