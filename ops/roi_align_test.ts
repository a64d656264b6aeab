import { assertClose, assertGradient, gpuTest, numbers } from "./_test_kit.ts";
import { constant } from "./graph/tensor.ts";
import { roiAlign } from "./roi_align.ts";
import { evaluate } from "./runtime/program.ts";

/** One output value of torchvision's algorithm, written as there: samples of a bin, each bilinear between 4 cells. */
const aligned = (
  map: (h: number, w: number) => number,
  H: number,
  W: number,
  box: number[],
  i: number,
  j: number,
) => {
  const [left, top, right, bottom] = box.map((v, k) => v * (k % 2 === 0 ? W : H) - 0.5);
  const binHeight = (bottom - top) / H, binWidth = (right - left) / W;
  const gridHeight = Math.ceil(binHeight), gridWidth = Math.ceil(binWidth);
  const cells = (at: number, size: number): [number, number, number] => {
    const inside = Math.max(at, 0);
    const low = Math.min(Math.trunc(inside), size - 1);
    return low === size - 1 ? [low, low, 0] : [low, low + 1, inside - low];
  };
  let total = 0;
  for (let a = 0; a < gridHeight; a++) {
    for (let b = 0; b < gridWidth; b++) {
      const y = top + i * binHeight + (a + 0.5) * binHeight / gridHeight;
      const x = left + j * binWidth + (b + 0.5) * binWidth / gridWidth;
      if (y < -1 || y > H || x < -1 || x > W) continue;
      const [h0, h1, dy] = cells(y, H), [w0, w1, dx] = cells(x, W);
      total += (1 - dy) * ((1 - dx) * map(h0, w0) + dx * map(h0, w1)) +
        dy * ((1 - dx) * map(h1, w0) + dx * map(h1, w1));
    }
  }
  return total / Math.max(gridHeight * gridWidth, 1);
};

gpuTest("roiAlign() agrees with loops for boxes within, beyond and larger than the map", function* () {
  const boxes = [
    [0.125, 0.25, 0.875, 1],
    [0, 0, 1, 1],
    [-0.75, -0.25, 2, 2.5], // three and two samples a bin, some of them outside
    [0.625, 0.25, 0.5, 0.75], // of negative width: nothing
    [-1.5, 0.5, -0.5, 1.5],
  ];
  const flips = [0, 1, 1, 0, 0];
  const [N, H, W, C] = [boxes.length, 4, 3, 4];
  const x = numbers(N * H * W * C);
  const want: number[] = [];
  for (let n = 0; n < N; n++) {
    for (let i = 0; i < H; i++) {
      for (let j = 0; j < W; j++) {
        for (let c = 0; c < C; c++) {
          const map = (h: number, w: number) => x[((n * H + h) * W + w) * C + c];
          want.push(aligned(map, H, W, boxes[n], i, flips[n] === 1 ? W - 1 - j : j));
        }
      }
    }
  }
  const y = roiAlign(constant(x, [N, H, W, C]), constant(boxes.flat(), [N, 4]), constant(flips));
  assertClose(yield* evaluate(y), want);
});

// Two prototypes' scores of the second view of samples 0 (flipped) and 1, from the recorded step resnet18_lars.
gpuTest("roiAlign() reproduces recorded score maps", function* () {
  const scores = [
    [0.081457585, -0.22738153, -0.065391146, -0.070748143, -0.072701342, -0.10101283],
    [0.12319249, -0.33960745, -0.14893672, -0.11638098, -0.074215129, 0.035273544],
    [-0.0078528244, 0.029333759, -0.014314688, -0.070720762, 0.10311335, 0.047268964],
    [0.13857582, -0.19738166, 0.16205725, 0.081206374, 0.21585944, -0.17636691],
    [-0.048364889, 0.034701038, 0.10401271, 0.13522132, 0.053691186, -0.33240935],
    [-0.08048141, 0.06937401, 0.10877313, -0.28876972, 0.058156122, -0.34422916],
  ];
  const want = [
    [-0.073136047, -0.061876535, -0.081595622, -0.073319465, -0.052600998, -0.11921145],
    [-0.043661915, 0.037340321, -0.086401686, -0.038607415, -0.080202729, -0.14221732],
    [0.10311335, 0.047268964, 0.041967385, -0.014169474, -0.013014668, -0.050591443],
    [0.10636915, -0.079639614, 0.15193656, 0.046969768, 0.1755756, -0.21512905],
    [-0.01145876, 0.052551918, 0.096721418, 0.02882782, 0.054117769, -0.33353862],
    [-0.03065557, -0.017703582, 0.10071561, -0.27663171, 0.057900172, -0.34355158],
  ];
  const boxes = [0.319526613, 0.114864863, 1, 1, 0.102564104, 0.108280256, 1, 0.955413997];
  const y = roiAlign(constant(scores.flat(), [2, 3, 3, 2]), constant(boxes, [2, 4]), constant([1, 0]));
  assertClose(yield* evaluate(y), want.flat(), { rtol: 1e-6 });
});

gpuTest("roiAlign() has the gradient that finite differences give", function* () {
  const boxes = constant([0.1, 0.2, 0.8, 1, -0.5, 0, 1.5, 0.7], [2, 4]), flips = constant([1, 0]);
  yield* assertGradient((x) => roiAlign(x, boxes, flips), [{ shape: [2, 3, 3, 4], data: numbers(72) }]);
});
