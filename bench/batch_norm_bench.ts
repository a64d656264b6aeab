import { numbers } from "../ops/_test_kit.ts";
import { batchMoments, batchNorm } from "../ops/batch_norm.ts";
import { constant, type Tensor } from "../ops/graph/tensor.ts";
import { opBench } from "./_kit.ts";
import { pulledBack } from "./_pulled_back.ts";

const C = 64, ROWS = 8 * 56 * 56, SIZE = ROWS * C;
const name = "batch norm 8×56²×64";

/** Everything about one layer in training, in f64. */
const layer = () => {
  const x = numbers(SIZE, 1), dy = numbers(SIZE, 2), weight = numbers(C, 3), bias = numbers(C, 4);
  const perChannel = (value: (at: number, c: number) => number) => {
    const sums = new Float64Array(C);
    for (let at = 0; at < SIZE; at++) sums[at % C] += value(at, at % C);
    return sums;
  };
  const mean = perChannel((at) => x[at] / ROWS);
  const variance = perChannel((at, c) => (x[at] - mean[c]) ** 2 / ROWS);
  const scale = variance.map((v) => 1 / Math.sqrt(v + 1e-5));
  const normalized = (at: number) => (x[at] - mean[at % C]) * scale[at % C];
  return { x, dy, weight, bias, mean, variance, scale, normalized, perChannel };
};

opBench(`${name}, forward`, { bytes: 4 * 3 * SIZE }, () => {
  const { x, weight, bias, normalized } = layer();
  const X = constant(x, [1, ROWS, C]);
  const result = batchNorm(X, constant(weight), constant(bias), batchMoments(X));
  return [{ result, expected: (at) => normalized(at) * weight[at % C] + bias[at % C] }];
});

opBench(`${name}, backward`, { bytes: 4 * 5 * SIZE }, () => {
  const { x, dy, weight, bias, mean, variance, scale, normalized, perChannel } = layer();
  const dBias = perChannel((at) => dy[at]);
  const dWeight = perChannel((at) => dy[at] * normalized(at));
  const values = constant([...mean, ...variance], [1, 2, C]);
  const y = batchNorm(constant(x, [1, ROWS, C]), constant(weight), constant(bias), {
    values,
    rows: constant(ROWS),
  });
  const [dx, , , dw, db] = pulledBack(y, constant(dy, y.shape)) as Tensor[];
  return [
    {
      result: dx,
      expected: (at) =>
        weight[at % C] * scale[at % C] *
        (dy[at] - dBias[at % C] / ROWS - normalized(at) * dWeight[at % C] / ROWS),
    },
    { result: dw, expected: (c) => dWeight[c] },
    { result: db, expected: (c) => dBias[c] },
  ];
});
