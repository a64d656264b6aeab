import assert from "node:assert/strict";
import { join } from "node:path";

Deno.test("the voice says soon, and then again and again, what a command does whose thread is blocked", async () => {
  const module = join(import.meta.dirname!, "voice.ts");
  const script = `
    import { voice } from "file://${module}";
    const block = (seconds) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000 * seconds);
    voice.start("Starting");
    await new Promise((resolve) => setTimeout(resolve, 500));
    voice.doing("Compiling");
    voice.soFar("7 kernels");
    block(11.5);
    voice.heard();
    block(3);
    voice.doing("");
  `;
  const since = performance.now();
  const { stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", script],
    env: { NO_COLOR: "1" },
  }).output();
  assert.equal(new TextDecoder().decode(stderr), "Compiling: 7 kernels so far …\n".repeat(2));
  assert.ok(performance.now() - since < 30_000); // the worker does not keep the process
});
