import assert from "node:assert/strict";
import { Effect } from "effect";
import { assertClose, gpuTest, numbers } from "../../ops/_test_kit.ts";
import { add, mul } from "../../ops/arithmetic.ts";
import { constant, input, stopGradient, type Tensor } from "../../ops/graph/tensor.ts";
import { sum } from "../../ops/reduce.ts";
import { compile } from "../../ops/runtime/program.ts";
import { type Declaration, StateBuilder } from "../model/state_builder.ts";
import { initialState } from "../run/initial_state.ts";
import { download, upload } from "../run/state.ts";
import { adamW } from "./_test_adamw.ts";
import { ObjectiveError, optimize } from "./optimize.ts";

const OPTIONS = { optimizer: "sgd", weightDecay: 0, momentum: 0 } as const;

const declared = (roles: Readonly<Record<string, Declaration["role"]>>) => {
  const state = new StateBuilder();
  const init = { kind: "constant", value: 1 } as const;
  const tensors = Object.entries(roles).map(([name, role]) =>
    state.declare(name, { role, shape: [2], storage: "same", init })
  );
  return { state, tensors };
};

const refusal = (state: StateBuilder, loss: Tensor): string => {
  try {
    optimize({ state, loss, metrics: {} }, input("rate", []), OPTIONS);
  } catch (error) {
    assert.ok(error instanceof ObjectiveError);
    return error.message;
  }
  throw new Error("it was optimised");
};

gpuTest("optimize() trains what is declared trained, whatever its name, and nothing else", function* () {
  const { state, tensors } = declared({
    "rpn_head.w": "trained",
    "encoder_q.w": "trained",
    center: "buffer",
  });
  const loss = sum(tensors.map((x) => mul(x, constant([1, 2]))).reduce(add));
  const step = optimize({ state, loss, metrics: { loss }, more: "kept" }, input("rate", []), OPTIONS);
  assert.deepEqual([...step.gradients.keys()], ["rpn_head.w", "encoder_q.w"]);
  assert.deepEqual(Object.keys(step.metrics), ["loss", "param_norm", "grad_norm"]);
  assert.equal(step.more, "kept");
  assert.equal(state.optimizer, "sgd");

  const buffers = yield* upload(state, initialState(state, 0));
  const program = yield* compile({ label: "step", updates: state.updates, outputs: step.metrics }, buffers);
  const metrics = yield* Effect.flatten(program.run({ rate: Float32Array.of(0.25) }));
  assert.deepEqual([metrics.param_norm[0], metrics.grad_norm[0]], [2, Math.sqrt(10)].map(Math.fround));
  const after = yield* download(state, buffers);
  assert.deepEqual(
    ["rpn_head.w", "encoder_q.w", "center"].map((name) => [...after.get(name)!.data]),
    [[0.75, 0.5], [0.75, 0.5], [1, 1]],
  );
});

Deno.test("optimize() refuses an objective that reaches no trained tensor, or not all of them", () => {
  const none = declared({ "rpn_head.w": "buffer", center: "buffer" });
  assert.equal(
    refusal(none.state, sum(none.tensors[0])),
    "Cannot train rpn_head.w, center: the objective declares no tensor trained; give those that the optimiser is to " +
      'move the role "trained"',
  );
  const { state, tensors: [a, b] } = declared({ a: "trained", b: "trained", c: "buffer" });
  assert.equal(
    refusal(state, sum(stopGradient(add(a, b)))),
    "Cannot train a, b: the gradients of the objective reach no trained tensor; let the loss depend on them, or declare " +
      "them as buffers",
  );
  assert.equal(
    refusal(state, sum(add(a, stopGradient(b)))),
    "Cannot train b: the gradients of the objective do not reach it; let the loss depend on it, or declare it as a buffer",
  );
});

gpuTest(
  "optimize() takes any optimiser: an AdamW moves parameters by its formula, with buffers of its own",
  function* () {
    const [rows, columns, rate, decay, steps] = [3, 4, 0.1, 0.05, 4];
    const state = new StateBuilder();
    const w = state.declare("head.w", {
      ...{
        role: "trained",
        shape: [rows, columns],
        storage: "linear",
        init: { kind: "normal", deviation: 1 },
      },
    });
    const loss = sum(mul(w, input("gradient", w.shape)));
    optimize({ state, loss, metrics: {} }, input("rate", []), {
      ...{ optimizer: adamW, weightDecay: decay, momentum: 0 },
    });
    assert.equal(state.optimizer, "adamW");
    const names = ["exp_avg", "exp_avg_mass", "exp_avg_sq", "exp_avg_sq_mass"];
    assert.deepEqual([...state.declared.keys()], [
      "head.w",
      ...names.map((name) => `optimizer.head.w.${name}`),
    ]);

    const start = initialState(state, 1);
    const buffers = yield* upload(state, start);
    const program = yield* compile({ label: "AdamW", updates: state.updates, outputs: {} }, buffers);
    const p = Float64Array.from(start.get("head.w")!.data);
    const m = p.map(() => 0), v = p.map(() => 0);
    for (let step = 1; step <= steps; step++) {
      const gradient = numbers(rows * columns, step); // [columns, rows] on the device
      yield* Effect.flatten(program.run({ gradient, rate: Float32Array.of(rate) }));
      p.forEach((_, i) => {
        const g = gradient[i % columns * rows + Math.floor(i / columns)];
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.999 * v[i] + 0.001 * g * g;
        p[i] -= rate * decay * p[i];
        p[i] -= rate * (m[i] / (1 - 0.9 ** step)) / (Math.sqrt(v[i] / (1 - 0.999 ** step)) + 1e-8);
      });
    }
    const after = yield* download(state, buffers);
    assertClose(after.get("head.w")!.data, p, { rtol: 1e-5 });
    assertClose(after.get("optimizer.head.w.exp_avg_sq")!.data, v, { rtol: 1e-5 });
    assert.deepEqual(after.get("optimizer.head.w.exp_avg_mass")!.shape, []);
  },
);
