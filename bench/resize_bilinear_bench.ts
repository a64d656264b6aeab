import { numbers } from "../ops/_test_kit.ts";
import { constant, type Tensor } from "../ops/graph/tensor.ts";
import { resizeBilinear } from "../ops/resize_bilinear.ts";
import { opBench } from "./_kit.ts";
import { pulledBack } from "./_pulled_back.ts";

const N = 8, SIDE = 56, C = 64, OUT = 2 * SIDE - 1; // corners aligned: every other pixel lies on a cell
const name = `bilinear resizing ${N}×${SIDE}²×${C} to ${OUT}²`;
const small = N * SIDE * SIDE * C, large = N * OUT * OUT * C;

const define = () => {
  const x = numbers(small, 1), dy = numbers(large, 2);
  const y = resizeBilinear(constant(x, [N, SIDE, SIDE, C]), { height: OUT, width: OUT, alignCorners: true });
  return { x, dy, y };
};
const place = (at: number, side: number) =>
  [
    ...[at % C, Math.floor(at / C) % side, Math.floor(at / C / side) % side],
    Math.floor(at / C / side / side),
  ] as const;

opBench(`${name}, forward`, { bytes: 4 * (small + large) }, () => {
  const { x, y } = define();
  const expected = (at: number) => {
    const [c, j, i, n] = place(at, OUT);
    const around = [Math.floor(i / 2), Math.ceil(i / 2)].flatMap((row) =>
      [Math.floor(j / 2), Math.ceil(j / 2)].map((column) => ((n * SIDE + row) * SIDE + column) * C + c)
    );
    return around.reduce((sum, cell) => sum + x[cell] / 4, 0);
  };
  return [{ result: y, expected }];
});

opBench(`${name}, backward`, { bytes: 4 * (small + large) }, () => {
  const { dy, y } = define();
  const expected = (at: number) => {
    const [c, column, row, n] = place(at, SIDE);
    let sum = 0;
    for (const [di, wi] of [[-1, 0.5], [0, 1], [1, 0.5]]) {
      for (const [dj, wj] of [[-1, 0.5], [0, 1], [1, 0.5]]) {
        const [i, j] = [2 * row + di, 2 * column + dj];
        if (i < 0 || j < 0 || i >= OUT || j >= OUT) continue;
        sum += wi * wj * dy[((n * OUT + i) * OUT + j) * C + c];
      }
    }
    return sum;
  };
  const [result] = pulledBack(y, constant(dy, y.shape)) as Tensor[];
  return [{ result, expected }];
});
