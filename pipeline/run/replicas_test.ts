import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest } from "../../ops/_test_kit.ts";
import { onRanks } from "../../ops/runtime/_test_ranks.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { initialState, isInitial } from "./initial_state.ts";
import { anyRankStops, broadcastStart, replicaCheck } from "./replicas.ts";
import { upload } from "./state.ts";
import type { StateValues } from "./state_layout.ts";

const declared = () => {
  const state = new StateBuilder();
  for (const name of ["encoder_q.a.weight", "encoder_q.b.weight"]) {
    state.declare(name, {
      role: "trained",
      shape: [3, 5],
      storage: "linear",
      init: { kind: "constant", value: 0 },
    });
  }
  return state;
};
const valuesOf = (last: number): StateValues =>
  new Map(["encoder_q.a.weight", "encoder_q.b.weight"].map((name, i) => [
    name,
    { shape: [3, 5], data: Float32Array.from({ length: 15 }, (_, j) => i === 1 && j === 14 ? last : j) },
  ]));

gpuTest(
  "sameBits() names the tensor and the rank that holds other bits, and passes where all are the same",
  function* () {
    const check = (values: (rank: number) => StateValues) =>
      onRanks(3, (rank) =>
        Effect.scoped(Effect.gen(function* () {
          const state = declared();
          const expectSame = yield* replicaCheck(state, yield* upload(state, values(rank)));
          yield* expectSame(100);
        })));
    yield* check(() => valuesOf(NaN));
    const error = yield* Effect.flip(check((rank) => valuesOf(rank === 2 ? -0 : 0))); // equal as numbers
    assert.match(
      error.message,
      /^After step 100 rank 2 holds other values of encoder_q\.b\.weight than rank 0/,
    );
  },
);

gpuTest(
  "sharedStart() gives all ranks what the first has found, bit for bit; the others do not look",
  function* () {
    const starts = yield* onRanks(3, (rank) => {
      const found = { step: 7, teacherLead: -2, values: valuesOf(1e-45), notes: ["from elsewhere"] };
      return broadcastStart(
        rank === 0 ? Effect.succeed(found) : Effect.die("only the first one looks"),
        declared(),
        0,
      );
    });
    for (const { step, teacherLead, values } of starts) {
      assert.deepEqual([step, teacherLead], [7, -2]);
      for (const [name, { data }] of valuesOf(1e-45)) assert.deepEqual(values.get(name)?.data, data);
    }
  },
);

gpuTest(
  "sharedStart() has every rank draw initial values itself, beside what came from elsewhere",
  function* () {
    const state = declared();
    state.declare("projector_q.weight", {
      role: "trained",
      shape: [4, 5],
      storage: "linear",
      init: { kind: "normal", deviation: 1 },
    });
    const initial = initialState(state, 11);
    const values = new Map([...initial, ...valuesOf(2)]);
    const found = { step: 0, teacherLead: 0, values, notes: [] };
    const starts = yield* onRanks(2, () => broadcastStart(Effect.succeed(found), state, 11));
    for (const { values: shared } of starts) {
      for (const [name, tensor] of values) {
        assert.equal(isInitial(shared.get(name)), isInitial(tensor));
        assert.deepEqual(shared.get(name)!.data, tensor.data);
      }
    }
  },
);

gpuTest("stopsHere() stops all ranks as soon as one is told to", function* () {
  assert.deepEqual(yield* onRanks(3, () => anyRankStops(false)), [false, false, false]);
  assert.deepEqual(yield* onRanks(3, (rank) => anyRankStops(rank === 1)), [true, true, true]);
});
