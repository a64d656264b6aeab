import { numbers } from "../ops/_test_kit.ts";
import { enlargedCrossEntropy } from "../ops/enlarged_cross_entropy.ts";
import { constant, type Tensor } from "../ops/graph/tensor.ts";
import { opBench } from "./_kit.ts";
import { pulledBack } from "./_pulled_back.ts";

// ADE20K's recipe, an image of it.
const N = 1, SIDE = 64, K = 150, PIXELS = 512;
const name = `enlarged cross-entropy, ${N}×${SIDE}²×${K} to ${PIXELS}²`;
const [cells, pixels] = [N * SIDE * SIDE, N * PIXELS * PIXELS];

const define = () => {
  const x = numbers(cells * K, 1), dy = numbers(pixels, 2);
  const labels = Uint32Array.from(numbers(pixels, 3), (v) => v > 0.7 ? 255 : Math.floor((v + 1) * 80) % K);
  const { loss } = enlargedCrossEntropy(
    constant(x, [N, SIDE, SIDE, K]),
    constant(labels, [N, PIXELS, PIXELS]),
    {
      alignCorners: false,
    },
  );
  /** The cells on either side of a pixel, and the second one's share. */
  const around = (pixel: number) => {
    const at = Math.max((pixel + 0.5) * SIDE / PIXELS - 0.5, 0);
    return { low: Math.floor(at), high: Math.min(Math.floor(at) + 1, SIDE - 1), share: at % 1 };
  };
  /** The scores of the pixel number `at` of all images. */
  const scores = (at: number) => {
    const [down, across] = [around(Math.floor(at / PIXELS) % PIXELS), around(at % PIXELS)];
    const first = Math.floor(at / PIXELS / PIXELS) * SIDE;
    const cell = (row: number, column: number, k: number) => x[((first + row) * SIDE + column) * K + k];
    return Array.from({ length: K }, (_, k) => {
      const [above, below] = [down.low, down.high].map((row) =>
        (1 - across.share) * cell(row, across.low, k) + across.share * cell(row, across.high, k)
      );
      return (1 - down.share) * above + down.share * below;
    });
  };
  const whole = (z: readonly number[]) => z.reduce((sum, score) => sum + Math.exp(score), 0);
  return { dy, labels, loss, around, scores, whole };
};

opBench(`${name}, forward`, { bytes: 4 * (cells * K + 2 * pixels) }, () => {
  const { labels, loss, scores, whole } = define();
  const expected = (at: number) => {
    if (labels[at] >= K) return 0;
    const z = scores(at);
    return Math.log(whole(z)) - z[labels[at]];
  };
  return [{ result: loss, expected }];
});

opBench(`${name}, backward`, { bytes: 4 * (2 * cells * K + 3 * pixels) }, () => {
  const { dy, labels, loss, around, scores, whole } = define();
  const weight = (cell: number, pixel: number) => {
    const { low, high, share } = around(pixel);
    return (cell === low ? 1 - share : 0) + (cell === high ? share : 0);
  };
  const expected = (at: number) => {
    const k = at % K, column = Math.floor(at / K) % SIDE, row = Math.floor(at / K / SIDE) % SIDE;
    const n = Math.floor(at / K / SIDE / SIDE), reach = Math.ceil(2 * PIXELS / SIDE);
    const near = (cell: number) => {
      const middle = Math.floor((cell + 0.5) * PIXELS / SIDE);
      return Array.from({ length: 2 * reach }, (_, i) => middle - reach + i)
        .filter((pixel) => pixel >= 0 && pixel < PIXELS && weight(cell, pixel) > 0);
    };
    let sum = 0;
    for (const i of near(row)) {
      for (const j of near(column)) {
        const pixel = (n * PIXELS + i) * PIXELS + j;
        if (labels[pixel] >= K) continue;
        const z = scores(pixel);
        const slope = Math.exp(z[k]) / whole(z) - Number(k === labels[pixel]);
        sum += weight(row, i) * weight(column, j) * slope * dy[pixel];
      }
    }
    return sum;
  };
  const [result] = pulledBack(loss, constant(dy, loss.shape)) as Tensor[];
  return [{ result, expected }];
});
