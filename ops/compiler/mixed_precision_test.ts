import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest, numbers, random } from "../_test_kit.ts";
import { add, mul, neg, relu, sub } from "../arithmetic.ts";
import { gradients } from "../autodiff.ts";
import { averagePool } from "../average_pool.ts";
import { batchMoments, batchNorm } from "../batch_norm.ts";
import { allGather, allReduceSum } from "../collective.ts";
import { compactRows } from "../compact_rows.ts";
import { conv2d } from "../conv2d.ts";
import { gatherRows } from "../gather_rows.ts";
import { gelu } from "../gelu.ts";
import type { Operand } from "../graph/kernel.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";
import { constant, defineOp, input, type Op, reshape, type Tensor } from "../graph/tensor.ts";
import { halfAccess } from "../kernels/f16_storage.ts";
import { vectorized } from "../kernels/vectorized.ts";
import { kernel } from "../kernels/wgsl.ts";
import { matmul, matmulTransposed } from "../matmul.ts";
import { maxPool } from "../max_pool.ts";
import { columnSums, rowSums, sum } from "../reduce.ts";
import { onRanks } from "../runtime/_test_ranks.ts";
import { Gpu } from "../runtime/gpu.ts";
import { compile } from "../runtime/program.ts";
import { slice, transpose } from "../slice.ts";
import { logSoftmax, softmax } from "../softmax.ts";
import { lower } from "./lower.ts";

/** Rounds to f16 in a program of f32 and is stored so in one of f16: both then go on with the same values. */
const rounded: Op = defineOp("rounded", {
  precision: "half",
  shape: ([x]) => x.shape,
  kernels: ({ inputs: [x], output }) => [copyKernel(x, output, "nearest")],
  backward: ({ gradient }) => [rounded([gradient])],
});

/** Leaves values as they are and is stored in f32. */
const asIs: Op = defineOp("asIs", {
  precision: "full",
  shape: ([x]) => x.shape,
  kernels: ({ inputs: [x], output }) => [copyKernel(x, output, "")],
  backward: ({ gradient }) => [asIs([gradient])],
});

/** Stored in f16, as it comes. */
const stored: Op = defineOp("stored", {
  precision: "half",
  shape: ([x]) => x.shape,
  kernels: ({ inputs: [x], output }) => [copyKernel(x, output, "")],
});

const copyKernel = (x: Operand, y: Operand, change: "" | "nearest") => {
  const { bind, width } = vectorized(change === "" ? sizeOf(y.shape) : 1);
  return kernel({
    label: "copy",
    reads: { x: bind(x) },
    writes: { y: bind(y) },
    threads: sizeOf(y.shape) / width,
    // By integers: drivers leave out a conversion to f16 and back.
    functions: /* wgsl */ `
fn nearest(value: f32) -> f32 {
  let bits = bitcast<u32>(value);
  let even = (bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u;
  return select(bitcast<f32>(even), round(value * 16777216.0) / 16777216.0, abs(value) < 6.1035156e-5);
}`,
    main: `y[id] = ${change}(x[id]);`,
  });
};

type Computation = readonly [(...inputs: readonly Tensor[]) => Tensor, ...Shape[]];

/** Single ops, at sizes that take every path: vectors or not, panels or not, strides, groups. */
const OPS: Readonly<Record<string, Computation>> = {
  "3×3 convolution": [(x, w) => conv2d(x, w, { pad: 1 }), [2, 16, 16, 16], [3, 3, 16, 32]],
  "3×3 convolution of many channels": [(x, w) => conv2d(x, w, { pad: 1 }), [2, 16, 16, 128], [3, 3, 128, 64]],
  "strided convolution": [(x, w) => conv2d(x, w, { pad: 3, stride: 2 }), [2, 20, 20, 3], [7, 7, 3, 8]],
  "grouped convolution": [(x, w) => conv2d(x, w, { pad: 1, groups: 4 }), [2, 12, 12, 16], [3, 3, 4, 16]],
  "1×1 convolution": [(x, w) => conv2d(x, w), [4, 16, 16, 64], [1, 1, 64, 256]],
  "product": [(a, b) => matmul(a, b), [512, 96], [96, 64]],
  "product of odd sizes": [(a, b) => matmul(a, b), [37, 13], [13, 11]],
  "batched product": [(a, b) => matmul(a, b), [3, 40, 24], [3, 24, 20]],
  "transposed product": [(a, b) => matmulTransposed(a, b), [3, 40, 24], [3, 40, 20]],
  "transposed product of many rows": [(a, b) => matmulTransposed(a, b), [1, 4096, 32], [1, 4096, 64]],
  "max pooling": [(x) => maxPool(x, { size: 3, stride: 2, pad: 1 }), [2, 15, 15, 12]],
  "average pooling": [(x) => averagePool(x, { size: 2, stride: 2 }), [2, 12, 12, 5]],
  "residual sum": [(x, y) => relu(add(mul(0.3, x), y)), [2, 99, 8], [2, 99, 8]],
  "GELU": [(x) => gelu(x), [33, 7]],
  "softmax": [(x) => softmax(x, 0.07), [50, 20]],
  "logarithm of softmax": [(x) => logSoftmax(x, 0.1), [50, 33]],
  "sums of rows": [(x) => rowSums([mul(x, x)]), [60, 12]],
  "sums of columns": [(x) => columnSums([x]), [2, 500, 12]],
  "part": [(x) => slice(x, 0, 1, 2), [3, 5, 7]],
  "transposition": [(x) => transpose(x, [0, 2, 1]), [2, 24, 12]],
  "chosen rows": [
    (x) => gatherRows(x, compactRows(constant(numbers(40).map((v) => (v > 0 ? 1 : 0))), 25)),
    [40, 12],
  ],
};

/** Both results and gradients of a computation, run in `precision` on an adapter like this. */
const runIn = (
  precision: "f32" | "f16",
  label: string,
  [f, ...shapes]: Computation,
  adapter: AdapterTraits,
) => {
  const inputs = shapes.map((shape, i) => rounded([random(shape, i + 1)]));
  const y = rounded([f(...inputs)]);
  const slopes = gradients(sum(mul(asIs([y]), random(y.shape, 7))), inputs);
  const outputs = {
    y: asIs([y]),
    ...Object.fromEntries(slopes.map((slope, i) => [`gradient ${i}`, asIs([rounded([slope])])])),
  };
  return Effect.flatMap(
    compile({ label, outputs, precision }, new Map(), adapter),
    (program) => Effect.flatten(program.run({})),
  );
};

gpuTest(
  "every op computes in f32 in a program of half precision: it gives what it gives in f32, rounded once, and so do gradients",
  function* () {
    const { traits } = yield* Gpu;
    for (const [name, computation] of Object.entries(OPS)) {
      const [, first] = computation;
      const small = { ...traits, maxBinding: 2 ** 14 };
      for (const adapter of [traits, { ...traits, cpu: false }, small]) {
        if (adapter === small && sizeOf(first) > 2 ** 13) continue; // weights do not fit
        const what = `${name}, ${adapter.cpu ? "software" : "GPU"}, bindings of ${adapter.maxBinding}`;
        const want = yield* runIn("f32", what, computation, adapter);
        const got = yield* runIn("f16", what, computation, adapter);
        for (const [output, values] of Object.entries(want)) {
          expectRoundedAlike(got[output], values, `${what}: ${output}`);
        }
      }
    }
  },
);

/** Values of f16 that differ by their last bit at most, where sums of f32 were rounded otherwise, and hardly ever. */
const expectRoundedAlike = (got: Float32Array, want: Float32Array, what: string) => {
  let others = 0;
  for (let i = 0; i < want.length; i++) {
    if (got[i] === want[i]) continue;
    others++;
    const step = 2 ** -10 * Math.max(Math.abs(want[i]), 2 ** -14);
    assert.ok(Math.abs(got[i] - want[i]) <= step, `${what} at ${i}: ${got[i]}, not ${want[i]}`);
  }
  assert.ok(others <= 1 + 0.02 * want.length, `${what}: ${others} of ${want.length} values differ`);
};

gpuTest(
  "activations and their gradients are stored in f16; sums, softmaxes, state and results are not",
  function* () {
    const { traits } = yield* Gpu;
    const images = input("images", [4, 16, 16, 8]), labels = random([4, 64, 16], 3);
    const [w, v, scale, bias] = [[3, 3, 8, 16], [16, 16], [16], [16]].map((shape, i) =>
      input(`w${i}`, shape)
    );
    const rows = reshape(conv2d(images, w, { pad: 1 }), [2, 512, 16]);
    const normal = batchNorm(rows, scale, bias, batchMoments(rows));
    const pooled = maxPool(relu(reshape(normal, [4, 16, 16, 16])), { size: 2, stride: 2, pad: 0 });
    const logits = reshape(matmul(pooled, v), [4, 64, 16]);
    const loss = neg(sum(mul(labels, logSoftmax(logits, 0.1))));
    const parameters = [w, v, scale, bias];
    const updates = new Map(
      gradients(loss, parameters).map((g, i) => [parameters[i], sub(parameters[i], g)]),
    );
    const plans = (["f32", "f16"] as const).map((precision) =>
      lower(
        { label: "step", updates, outputs: { loss, logits }, precision },
        traits,
        (name) => name !== "images",
      )
    );
    const [full, half] = plans.map(({ kernels, produces }) =>
      new Map(kernels.flatMap(({ bindings }, i) => {
        const [made] = bindings.filter(({ access }) => access === "write").slice(-1);
        const { source, shape } = produces[i];
        return [[`${source.kind === "op" ? source.op.name : ""} ${shape.join("×")}`, made.operand.dtype]];
      }))
    );
    const inHalf = [...half].filter(([, dtype]) => dtype === "f16").map(([name]) => name);
    assert.deepEqual(inHalf, [
      "conv2d 4×16×16×16",
      "relu 4×16×16×16",
      "maxPool 4×8×8×16",
      "matmul 1×256×16",
      "maxPoolGradient 4×16×16×16",
      "mul 2×512×16",
    ]);
    assert.ok([...full.values()].every((dtype) => dtype === "f32"));
  },
);

gpuTest("compile() refuses half precision where the adapter lacks it, and says what to do", function* () {
  const { traits, report } = yield* Gpu;
  const graph = { label: "the step", outputs: { x: random([4]) }, precision: "f16" } as const;
  const error = yield* Effect.flip(compile(graph, new Map(), { ...traits, shaderF16: false }));
  assert.equal(
    error.message,
    `Cannot run the step in half precision: ${report.description} has no shader-f16. Use precision f32`,
  );
});

gpuTest(
  "storing in f16 rounds to the nearest, to even, to infinity and to nought as Float16Array does",
  function* () {
    // Every f16, the value half way to the next one, and those just beside that; and the smallest values.
    const halves = new Float16Array(Uint16Array.from({ length: 2 ** 16 }, (_, i) => i).buffer);
    const bits = new Uint32Array(Float32Array.from(halves).buffer);
    const values = new Float32Array(
      Uint32Array.from([0, 0xfff, 0x1000, 0x1001].flatMap((more) => [...bits].map((word) => word + more)))
        .buffer,
    );
    const small = Float32Array.from({ length: 4096 }, (_, i) => (i - 2048) * 2 ** -26);
    const { traits } = yield* Gpu;
    for (const all of [values, small, values.subarray(1), small.subarray(1)]) { // an odd number makes no vectors
      const y = asIs([stored([constant(all)])]);
      for (const adapter of [traits, { ...traits, cpu: !traits.cpu }]) {
        const program = yield* compile(
          { label: "stored", outputs: { y }, precision: "f16" },
          new Map(),
          adapter,
        );
        const result = yield* Effect.flatten(program.run({}));
        assert.deepEqual(result.y, Float32Array.from(Float16Array.from(all)));
      }
    }
  },
);

gpuTest("what ranks exchange is not narrowed on its way", function* () {
  const give = (precision: "f32" | "f16") =>
    onRanks(2, (rank) =>
      Effect.scoped(Effect.gen(function* () {
        const product = matmul(input("x", [8, 4]), random([4, 4], 2)); // would be in f16
        const shared = { all: allGather(product, 2), sum: allReduceSum(mul(product, product)) };
        const outputs = { ...shared, more: add(shared.sum, product) };
        const program = yield* compile({ label: "exchange", outputs, precision });
        return yield* yield* program.run({ x: numbers(32, 5 + rank) });
      })));
  assert.deepEqual(yield* give("f16"), yield* give("f32"));
});

Deno.test("halfAccess() converts what is read and written, within indices too, and refuses to read what is written", () => {
  const read = halfAccess("if (x[k[x[i]]] <= p.x[0]) { y[id] = 0.0; } // x[", "x", false, "read");
  assert.equal(read, "if (f32(x[k[f32(x[i])]]) <= p.x[0]) { y[id] = 0.0; } ");
  const written = halfAccess("y[i] = select(a, b, y0[i] == c);", "y", true, "write");
  assert.equal(written, "y[i] = narrowed(select(a, b, y0[i] == c));");
  for (const code of ["y[id] += 1.0;", "y[id] = y[id] + 1.0;", "if (y[id] == 0.0) { y[id] = 1.0; }"]) {
    assert.throws(
      () => halfAccess(code, "y", false, "write"),
      /reads y that it writes, in f16: keep sums in/,
    );
  }
});
