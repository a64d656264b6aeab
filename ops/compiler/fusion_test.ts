import assert from "node:assert/strict";
import { add, exp, mul, relu } from "../arithmetic.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { input, reshape, type Tensor } from "../graph/tensor.ts";
import { matmul } from "../matmul.ts";
import { columnSums } from "../reduce.ts";
import { slice, transpose } from "../slice.ts";
import { fusedInputs } from "./fused_inputs.ts";
import { chooseInlined } from "./fusion.ts";
import { isFused, reachable } from "./graph.ts";

const traits: AdapterTraits = {
  ...{ cpu: true, maxStorageBuffers: 8, maxBinding: 2 ** 27, shaderF16: true, minSubgroupSize: 0 },
};

/** The inlined tensors of a graph with these results. */
const inlinedOf = (...results: readonly Tensor[]) =>
  chooseInlined(reachable(results), new Set(results), traits);

const [a, b, c] = ["a", "b", "c"].map((name) => input(name, [4, 6]));

Deno.test("chooseInlined() inlines a tensor with one reader that is fused, and no result", () => {
  const sum = add(a, b);
  const root = relu(sum);
  assert.deepEqual([...inlinedOf(root)], [sum]);
  assert.deepEqual([...inlinedOf(root, sum)], []); // its value leaves the program
  assert.deepEqual([...inlinedOf(columnSums([reshape(root, [1, 4, 6])]))], [sum, root]);
  assert.deepEqual([...inlinedOf(matmul(sum, input("w", [6, 2])))], []); // GEMMs read memory
});

Deno.test("chooseInlined() lets several readers compute a tensor of two large inputs, and stores one of three", () => {
  const two = add(mul(a, b), input("bias", [6]));
  assert.ok(inlinedOf(exp(two), relu(two)).has(two));
  const three = add(mul(a, b), c);
  assert.ok(!inlinedOf(exp(three), relu(three)).has(three));
});

Deno.test("chooseInlined() stores what strides cannot express: an offset into a value that is not in memory", () => {
  const product = mul(a, b);
  assert.ok(inlinedOf(relu(slice(product, 0, 0, 2))).has(product));
  assert.ok(!inlinedOf(relu(slice(product, 0, 1, 2))).has(product));
  const twice = transpose(reshape(transpose(product, [1, 0]), [3, 8]), [1, 0]);
  const inlined = inlinedOf(relu(twice));
  assert.notEqual(fusedInputs(twice, (x) => inlined.has(x)), null);
});

Deno.test("chooseInlined() leaves no kernel with more inputs than a shader can bind", () => {
  const leaves = Array.from({ length: 40 }, (_, i) => input(`leaf ${i}`, [6]));
  // A balanced tree: its upper nodes would read all leaves at once.
  let level: readonly Tensor[] = leaves;
  while (level.length > 1) {
    level = Array.from(
      { length: Math.ceil(level.length / 2) },
      (_, i) => 2 * i + 1 < level.length ? add(level[2 * i], level[2 * i + 1]) : level[2 * i],
    );
  }
  const live = reachable(level);
  const inlined = inlinedOf(...level);
  const isInlined = (x: Tensor) => inlined.has(x);
  assert.ok(inlined.size > 0);
  for (const x of live.filter((x) => isFused(x) && !isInlined(x))) {
    const read = new Set(fusedInputs(x, isInlined)!.map(({ tensor }) => tensor));
    assert.ok(read.size <= traits.maxStorageBuffers - 2, `${read.size} inputs`);
  }
});
