import { numbers } from "../ops/_test_kit.ts";
import { constant } from "../ops/graph/tensor.ts";
import { matmul } from "../ops/matmul.ts";
import { opBench } from "./_kit.ts";

for (const size of [512, 1024]) {
  opBench(`matmul ${size}×${size}×${size}`, { flops: 2 * size ** 3 }, () => {
    const a = numbers(size * size, 1), b = numbers(size * size, 2);
    const result = matmul(constant(a, [size, size]), constant(b, [size, size]));
    const expected = (at: number) => {
      let sum = 0;
      for (let k = 0; k < size; k++) {
        sum += a[Math.floor(at / size) * size + k] * b[k * size + at % size];
      }
      return sum;
    };
    return [{ result, expected }];
  });
}
