import assert from "node:assert/strict";
import { join } from "node:path";
import { endingOf } from "../../data/_test_kit.ts";

const root = join(import.meta.dirname!, "../..");

/** Bytes of the heap that a fiber's waits leave behind, each. */
const SCRIPT = `
  import "./pipeline/run/without_async_context.ts";
  import { Effect } from "effect";
  const waits = (count) => Effect.gen(function* () {
    for (let i = 0; i < count; i++) yield* Effect.promise(() => Promise.resolve());
  });
  const held = Effect.sync(() => {
    gc();
    return Deno.memoryUsage().heapUsed;
  });
  Effect.gen(function* () {
    yield* waits(1000);
    const before = yield* held;
    yield* waits(20000);
    console.log(((yield* held) - before) / 20000);
  }).pipe(Effect.runPromise);
`;

Deno.test("a fiber that waits for weeks holds nothing of the waits before, where this is imported before Effect", async () => {
  const { code, out, err } = endingOf(
    await new Deno.Command(Deno.execPath(), {
      args: ["eval", "--quiet", "--no-check", "--cached-only", "--v8-flags=--expose-gc", SCRIPT],
      cwd: root,
      stdin: "null",
    }).output(),
  );
  assert.equal(code, 0, err);
  assert.ok(Number(out) < 50, `${out.trim()} bytes of each wait, expected 0`);
  const commandLine = await Deno.readTextFile(join(root, "cli/main.ts"));
  assert.match(commandLine.match(/^import .*$/m)![0], /without_async_context\.ts/);
});
