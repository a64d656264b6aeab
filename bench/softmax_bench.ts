import { numbers } from "../ops/_test_kit.ts";
import { constant } from "../ops/graph/tensor.ts";
import { softmax } from "../ops/softmax.ts";
import { opBench } from "./_kit.ts";

const ROWS = 16 * 1024, K = 256, TEMPERATURE = 0.07;

opBench(`softmax ${ROWS}×${K}`, { bytes: 4 * 2 * ROWS * K }, () => {
  const x = numbers(ROWS * K);
  const expected = (at: number) => {
    const row = x.subarray(at - at % K, at - at % K + K);
    const sum = row.reduce((sum, value) => sum + Math.exp(value / TEMPERATURE), 0);
    return Math.exp(x[at] / TEMPERATURE) / sum;
  };
  return [{ result: softmax(constant(x, [ROWS, K]), TEMPERATURE), expected }];
});
