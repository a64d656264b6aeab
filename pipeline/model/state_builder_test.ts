import assert from "node:assert/strict";
import { type Declaration, DeclarationError, StateBuilder } from "./state_builder.ts";

const weight: Declaration = {
  role: "trained",
  shape: [3, 5],
  storage: "linear",
  init: { kind: "normal", deviation: 0.02 },
};

const refusal = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof DeclarationError);
    return error.message;
  }
  throw new Error("it was declared");
};

Deno.test("declare() gives the same tensor for the same declaration, and names what differs in another", () => {
  const state = new StateBuilder();
  const tensor = state.declare("head.weight", weight);
  assert.deepEqual(tensor.shape, [5, 3]);
  assert.equal(state.declare("head.weight", { ...weight }), tensor);
  const cases: [Partial<Declaration>, string][] = [
    [{ shape: [5, 3] }, "shape [3, 5], not [5, 3]"],
    [{ role: "buffer" }, "role trained, not buffer"],
    [{ role: { averageOf: "x" } }, "role trained, not average of x"],
    [{ init: { kind: "normal", deviation: 1 } }, "init normal of deviation 0.02, not normal of deviation 1"],
    [
      { storage: "same", init: { kind: "constant", value: 0 } },
      "storage linear, not same; init normal of deviation 0.02, not constant 0",
    ],
  ];
  for (const [change, expected] of cases) {
    assert.equal(
      refusal(() => state.declare("head.weight", { ...weight, ...change })),
      `Cannot declare head.weight: it is declared already, with ${expected}`,
    );
  }
});

Deno.test("declare() refuses an average of a tensor that is not there, or of another shape", () => {
  const state = new StateBuilder();
  const average: Declaration = { ...weight, role: { averageOf: "head.weight" } };
  assert.equal(
    refusal(() => state.declare("average.weight", average)),
    "Cannot declare average.weight: it is an average of head.weight, which is not declared yet",
  );
  state.declare("head.weight", weight);
  assert.equal(
    refusal(() => state.declare("average.weight", { ...average, shape: [3, 7] })),
    "Cannot declare average.weight: it is an average of head.weight, which has shape [3, 5], not [3, 7]",
  );
  state.declare("average.weight", average);
});
