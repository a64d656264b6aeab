import { numbers } from "../ops/_test_kit.ts";
import { constant, type Tensor } from "../ops/graph/tensor.ts";
import { maxPool } from "../ops/max_pool.ts";
import { opBench } from "./_kit.ts";
import { pulledBack } from "./_pulled_back.ts";

const N = 8, SIDE = 112, C = 64, OUT = SIDE / 2;
const name = `max pool 3×3 / 2, ${N}×${SIDE}²×${C}`;
const large = N * SIDE * SIDE * C, small = N * OUT * OUT * C;

const define = () => {
  const x = numbers(large, 1), dy = numbers(small, 2);
  const y = maxPool(constant(x, [N, SIDE, SIDE, C]), { size: 3, stride: 2, pad: 1 });
  /** Where in x the largest value of a window lies. */
  const winner = (at: number) => {
    const c = at % C, j = Math.floor(at / C) % OUT, i = Math.floor(at / C / OUT) % OUT;
    const n = Math.floor(at / C / OUT / OUT);
    const rows = [2 * i - 1, 2 * i, 2 * i + 1].filter((h) => h >= 0 && h < SIDE);
    const columns = [2 * j - 1, 2 * j, 2 * j + 1].filter((w) => w >= 0 && w < SIDE);
    return rows.flatMap((h) => columns.map((w) => ((n * SIDE + h) * SIDE + w) * C + c))
      .reduce((best, place) => x[place] > x[best] ? place : best);
  };
  return { x, dy, y, winner };
};

opBench(`${name}, forward`, { bytes: 4 * (large + small) }, () => {
  const { x, y, winner } = define();
  return [{ result: y, expected: (at) => x[winner(at)] }];
});

opBench(`${name}, backward`, { bytes: 4 * (2 * large + small) }, () => {
  const { dy, y, winner } = define();
  const dx = new Float64Array(large);
  for (let at = 0; at < small; at++) dx[winner(at)] += dy[at];
  const [result] = pulledBack(y, constant(dy, y.shape)) as Tensor[];
  return [{ result, expected: (at) => dx[at] }];
});
