import assert from "node:assert/strict";
import { Effect } from "effect";
import { StateBuilder } from "./model/network.ts";
import { drawnState, initialState } from "./state.ts";

Deno.test("drawnState() gives by its workers what initialState() gives alone, bit for bit", async () => {
  const state = new StateBuilder();
  const normal = { kind: "normal", deviation: 0.5 } as const;
  state.declare("encoder_q.large", [1500, 1001], "linear", normal); // in two pieces, of an odd number in all
  state.declare("encoder_q.small", [3], "same", normal);
  state.declare("encoder_q.cut", [600, 600], "linear", { kind: "truncated", deviation: 1 });
  state.declare("encoder_q.uncut", [600, 600], "linear", { kind: "truncated", deviation: 0.02 });
  state.declare("encoder_q.scale", [3], "same", { kind: "constant", value: 1 });
  state.declare("encoder_k.large", [1500, 1001], "linear", normal);
  const alone = initialState(state, 7);
  const drawn = await Effect.runPromise(drawnState(state, 7));
  assert.deepEqual(drawn, alone);

  const data = (name: string) => alone.get(`encoder_${name}`)!.data;
  assert.equal(data("k.large"), data("q.large")); // so that it is uploaded once
  const deviation = (values: Float32Array) =>
    Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
  assert.ok(Math.abs(deviation(data("q.large")) - 0.5) < 0.01);
  assert.ok(Math.abs(deviation(data("q.uncut")) - 0.02) < 0.001);
  const farthest = data("q.cut").reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  assert.ok(farthest > 1.9 && farthest <= 2);
  assert.deepEqual([...data("q.scale")], [1, 1, 1]);
});
