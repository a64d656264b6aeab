/** What tests of ops share: a device, property checks and finite differences. */
import assert from "node:assert/strict";
import { Effect, type Layer, ManagedRuntime } from "effect";
import { mul } from "./arithmetic.ts";
import { gradients } from "./autodiff.ts";
import { type Shape, sizeOf } from "./graph/shape.ts";
import { constant, type Tensor } from "./graph/tensor.ts";
import { sum } from "./reduce.ts";
import { dawn, native } from "./runtime/adapters.ts";
import { Gpu, type GpuError } from "./runtime/gpu.ts";
import { evaluate } from "./runtime/program.ts";

// One device for a test file; the tests of a file share its compiled pipelines.
const runtimeOn = (device: Layer.Layer<Gpu, GpuError>) => {
  const runtime = ManagedRuntime.make(device);
  // A device that is still there when the process ends may take it down: drivers tidy up in threads of their own.
  Deno.test.afterAll(() => runtime.dispose());
  return runtime;
};
const usual = runtimeOn(Deno.env.get("SLOTCON_DEVICE") === "dawn" ? dawn : native);
const other = runtimeOn(dawn);

type Body = () => Generator<Effect.Effect<unknown, unknown, unknown>, void, never>;

/** A test whose effects may use the GPU. */
export const gpuTest = (name: string, body: Body) => testOn(usual, name, body);

/**
 * The same with subgroups, which Deno's own WebGPU does not have: on Dawn; where that has none either, the test is ignored
 * and says so in its name.
 */
export const subgroupTest = async (name: string, body: Body) => {
  const there = await other.runPromise(Gpu.use(({ traits }) => Effect.succeed(traits.minSubgroupSize > 0)))
    .catch(
      () => false,
    );
  if (there) testOn(other, name, body);
  else Deno.test.ignore(`${name} (skipped: Dawn finds no adapter with subgroups)`, () => {});
};

const testOn = (runtime: ManagedRuntime.ManagedRuntime<Gpu, GpuError>, name: string, body: Body) =>
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: () =>
      runtime.runPromise(Effect.scoped(Effect.gen(body as never)) as Effect.Effect<void, unknown, Gpu>),
  });

/** Deterministic numbers in (-1, 1), different for each seed. */
export const numbers = (count: number, seed = 1): Float32Array => {
  let state = seed * 2654435761 >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
};

export const random = (shape: Shape, seed = 1): Tensor => constant(numbers(sizeOf(shape), seed), shape);

/** Fails unless ‖got − want‖ ≤ rtol · ‖want‖ + atol. */
export const assertClose = (
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  { rtol = 1e-5, atol = 0, what = "values" }: { rtol?: number; atol?: number; what?: string } = {},
) => {
  assert.equal(got.length, want.length, `${what}: number of values`);
  let difference = 0, norm = 0;
  for (let i = 0; i < want.length; i++) {
    difference += (got[i] - want[i]) ** 2;
    norm += want[i] ** 2;
  }
  const error = Math.sqrt(difference), allowed = rtol * Math.sqrt(norm) + atol;
  assert.ok(
    error <= allowed,
    `${what}: off by ${error}, allowed ${allowed}; got ${[...Array.from(got).slice(0, 8)]}, want ${[
      ...Array.from(want).slice(0, 8),
    ]}`,
  );
};

/**
 * Compares the gradients of Σ f(x)·r, r random, with central differences at `probes` places of every input.
 * Inputs should lie away from kinks.
 */
export const assertGradient = Effect.fnUntraced(function* (
  f: (...inputs: readonly Tensor[]) => Tensor,
  inputs: readonly { readonly shape: Shape; readonly data: Float32Array }[],
  { step = 1e-2, rtol = 2e-2, atol = 1e-3, probes = 6 }: {
    step?: number;
    rtol?: number;
    atol?: number;
    probes?: number;
  } = {},
) {
  const objective = (values: readonly Float32Array[]) => {
    const tensors = values.map((data, i) => constant(data, inputs[i].shape));
    const y = f(...tensors);
    const loss = sum(mul(y, constant(numbers(sizeOf(y.shape), 77), y.shape)));
    return { tensors, loss };
  };
  const base = inputs.map(({ data }) => data);
  const { tensors, loss } = objective(base);
  const computed = gradients(loss, tensors);
  for (let i = 0; i < inputs.length; i++) {
    const analytic = yield* evaluate(computed[i]);
    for (let probe = 0; probe < probes; probe++) {
      const at = Math.floor((numbers(1, 100 + probe)[0] + 1) / 2 * base[i].length);
      const values: number[] = [];
      for (const sign of [1, -1]) {
        const moved = base[i].slice();
        moved[at] += sign * step;
        values.push((yield* evaluate(objective(base.with(i, moved)).loss))[0]);
      }
      const numeric = (values[0] - values[1]) / (2 * step);
      const allowed = rtol * Math.abs(numeric) + atol;
      assert.ok(
        Math.abs(analytic[at] - numeric) <= allowed,
        `gradient of input ${i} at ${at}: ${analytic[at]}, by finite differences ${numeric}`,
      );
    }
  }
});
