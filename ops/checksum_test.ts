import assert from "node:assert/strict";
import { gpuTest, numbers } from "./_test_kit.ts";
import { checksum } from "./checksum.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";

gpuTest("checksum() sees every bit of every value", function* () {
  const values = numbers(1000);
  const sums = (data: Float32Array) => evaluate(checksum(constant(data, [10, 100])));
  const expected = yield* sums(values);
  assert.deepEqual(yield* sums(values.slice()), expected);
  for (const i of [0, 63, 64, 517, 999]) {
    const changed = values.slice();
    new Uint32Array(changed.buffer)[i] ^= 1;
    assert.notDeepEqual(yield* sums(changed), expected);
  }
  const zeros = new Float32Array(1000);
  assert.notDeepEqual(yield* sums(zeros.map(() => -0)), yield* sums(zeros));
});
