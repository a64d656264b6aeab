import assert from "node:assert/strict";
import { gpuTest } from "../../ops/_test_kit.ts";
import { type Init, StateBuilder } from "../model/state_builder.ts";
import { initialState } from "./initial_state.ts";
import { download, upload } from "./state.ts";

const normal = (deviation: number): Init => ({ kind: "normal", deviation });
const constant = (value: number): Init => ({ kind: "constant", value });

const declared = () => {
  const state = new StateBuilder();
  const conv = { shape: [50, 7, 3, 3], storage: "conv", init: normal(0.3) } as const;
  const running = { role: "statistics", shape: [5], storage: "running", init: constant(0) } as const;
  state.declare("encoder_q.conv", { role: "trained", ...conv });
  state.declare("encoder_q.linear", {
    role: "trained",
    shape: [33, 129],
    storage: "linear",
    init: normal(0.02),
  });
  state.declare("encoder_q.same", { role: "trained", shape: [13], storage: "same", init: normal(1) });
  state.declare("encoder_q.scale", { role: "trained", shape: [3], storage: "same", init: constant(1) });
  state.declare("encoder_q.bias", { role: "trained", shape: [3], storage: "same", init: constant(0) });
  state.declare("encoder_q.running", running);
  state.declare("encoder_k.conv", { role: { averageOf: "encoder_q.conv" }, ...conv });
  state.declare("encoder_k.running", running);
  state.declare("optimizer.encoder_q.conv", { role: "buffer", ...conv, init: constant(0) });
  return state;
};

gpuTest(
  "upload() has the device draw the initial values that the host draws, bit for bit, and the teacher copied",
  function* () {
    const state = declared();
    const drawn = yield* download(state, yield* upload(state, initialState(state, 7)));
    const want = initialState(state, 7);
    assert.deepEqual([...drawn.keys()].sort(), [...want.keys()].sort());
    for (const [name, { shape, data }] of want) {
      assert.deepEqual(drawn.get(name), { shape, data }, name);
    }
    const data = (name: string) => drawn.get(name)!.data;
    assert.deepEqual(data("encoder_k.conv"), data("encoder_q.conv"));
    assert.deepEqual(data("encoder_q.running_var"), new Float32Array(5).fill(1));
    assert.deepEqual(data("encoder_q.scale"), new Float32Array(3).fill(1));
    for (const [name, deviation] of [["conv", 0.3], ["linear", 0.02]] as const) {
      const values = data(`encoder_q.${name}`);
      const found = Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
      assert.ok(Math.abs(found / deviation - 1) < 0.05, `${name}: ${found}`); // four standard errors
    }
  },
);

gpuTest("upload() takes values from elsewhere as they are, beside initial ones", function* () {
  const state = declared();
  const values = new Map(initialState(state, 7));
  const { shape, data } = values.get("encoder_q.linear")!;
  values.set("encoder_q.linear", { shape, data: data.map((_, i) => i) });
  const held = yield* download(state, yield* upload(state, values));
  assert.deepEqual(held.get("encoder_q.linear")!.data, data.map((_, i) => i));
  assert.deepEqual(held.get("encoder_q.conv")!.data, values.get("encoder_q.conv")!.data);
});

Deno.test("initialState() draws other numbers for every tensor and every seed", () => {
  const state = new StateBuilder();
  for (const name of ["a", "b"]) {
    state.declare(name, { role: "trained", shape: [100], storage: "same", init: normal(1) });
  }
  const draws = [1, 2].flatMap((seed) =>
    [...initialState(state, seed).values()].map(({ data }) => data.join())
  );
  assert.equal(new Set(draws).size, 4);
});
