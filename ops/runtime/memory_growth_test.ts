/** Each in a process of its own, whose memory nothing else changes. For less than a large leak: deno task bench:growth. */
import assert from "node:assert/strict";
import { join } from "node:path";

const script = (backend: string, runs: number) => `
  import { Effect } from "effect";
  import { mul } from "./ops/arithmetic.ts";
  import { input } from "./ops/graph/tensor.ts";
  import { layers } from "./ops/runtime/adapters.ts";
  import { compile } from "./ops/runtime/program.ts";
  const resident = Effect.sync(() => {
    gc();
    return Deno.memoryUsage().rss / 2 ** 20;
  });
  Effect.gen(function* () {
    const x = input("x", [65536]);
    const program = yield* compile({ label: "test", outputs: { y: mul(2, x) } });
    const run = Effect.flatten(program.run({ x: new Float32Array(65536) }));
    yield* Effect.replicateEffect(run, ${runs}, { discard: true });
    const before = yield* resident;
    yield* Effect.replicateEffect(run, ${runs}, { discard: true });
    console.log("MiB", (yield* resident) - before);
  }).pipe(Effect.scoped, Effect.provide(layers.${backend}), Effect.runPromise);
`;

for (const [backend, runs] of [["native", 150], ["dawn", 1000]] as const) {
  Deno.test(`a program that runs ${runs} times again takes no more memory (${backend})`, async () => {
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "eval",
        "--quiet",
        "--no-check",
        "--cached-only",
        "--v8-flags=--expose-gc",
        script(backend, runs),
      ],
      cwd: join(import.meta.dirname!, "../.."),
      stdin: "null",
    }).output();
    const [said, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assert.ok(success, errors);
    const mebibytes = Number(said.match(/MiB (\S+)/)![1]);
    assert.ok(mebibytes < 10, `${mebibytes} MiB more after ${runs} more runs`);
  });
}
