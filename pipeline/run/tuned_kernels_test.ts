import assert from "node:assert/strict";
import { Effect } from "effect";
import { TunedChoices } from "../../ops/compiler/kernel_selection.ts";
import type { AdapterReport } from "../../ops/graph/lowering.ts";
import { layerTuned, readTuned, tunedFile, writeTuned } from "./tuned_kernels.ts";

const adapter: AdapterReport = {
  ...{ backend: "native", vendor: "nobody", architecture: "none", description: "An adapter (for tests)" },
  ...{ software: false, features: [], limits: { maxBufferSize: 2 ** 28 } },
};
const choice = { chosen: "16×4 in 2×4", milliseconds: { "16×4 in 2×4": 1.5, "8×4 in 2×4": null } };

/** Which variant a program that is compiled now would take. */
const taken = (of: AdapterReport, work: string) =>
  Effect.runSync(
    Effect.map(TunedChoices, (choices) => choices(of)(work, Object.keys(choice.milliseconds))).pipe(
      Effect.provide(layerTuned),
    ),
  );

Deno.test("what was tuned for an adapter is taken by programs for it, and by no others", async () => {
  const file = tunedFile(adapter);
  try {
    await Effect.runPromise(writeTuned(adapter, { "matmul [1,2,3] [1,3,4]": choice }));
    assert.deepEqual(readTuned(adapter), { "matmul [1,2,3] [1,3,4]": choice });
    assert.equal(taken(adapter, "matmul [1,2,3] [1,3,4]"), choice.chosen);
    assert.equal(taken(adapter, "matmul [1,2,3] [1,3,5]"), undefined);
    assert.equal(
      taken({ ...adapter, limits: { maxBufferSize: 2 ** 30 } }, "matmul [1,2,3] [1,3,4]"),
      undefined,
    );

    const said: string[] = [];
    const { error } = console;
    console.error = (text: string) => void said.push(text);
    try {
      for (const content of ["{", `{"format":"slotcon-kernels/0","choices":{}}`, "[]"]) {
        Deno.writeTextFileSync(file, content);
        assert.deepEqual(readTuned(adapter), {});
      }
    } finally {
      console.error = error;
    }
    assert.equal(said.length, 3);
    assert.match(
      said[0],
      /kernels\/an-adapter-for-tests-\w{8}\.json is not a file of tuned kernels: .* slotcon tune writes it anew$/,
    );
  } finally {
    Deno.removeSync(file);
  }
  assert.equal(taken(adapter, "matmul [1,2,3] [1,3,4]"), undefined);
});
