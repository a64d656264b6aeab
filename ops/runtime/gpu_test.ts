import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest } from "../_test_kit.ts";
import { dawn } from "./adapters.ts";
import { Gpu, mapped, STORAGE } from "./gpu.ts";

Deno.test({
  name: "Dawn is asked a few times in a wait whether the device is ready, not whenever it can be",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    Effect.gen(function* () {
      const gpu = yield* Gpu;
      const size = 2 ** 24;
      const [from, to] = yield* Effect.all([1, 2].map((n) => gpu.buffer(`buffer ${n}`, size, STORAGE)));
      const read = yield* gpu.buffer("read", 4, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
      const wait = Effect.gen(function* () {
        const encoder = gpu.device.createCommandEncoder();
        for (let i = 0; i < 10; i++) encoder.copyBufferToBuffer(from, 0, to, 0, size);
        encoder.copyBufferToBuffer(to, 0, read, 0, 4);
        gpu.device.queue.submit([encoder.finish()]);
        yield* mapped(read);
        read.unmap();
      });
      yield* Effect.replicateEffect(wait, 5); // so long does a wait take

      const { setImmediate } = globalThis;
      let asked = 0;
      globalThis.setImmediate = ((...args: Parameters<typeof setImmediate>) => {
        asked++;
        return setImmediate(...args);
      }) as typeof setImmediate;
      yield* Effect.replicateEffect(wait, 5);
      globalThis.setImmediate = setImmediate;
      assert.ok(5 <= asked && asked < 5 * 20, `asked ${asked} times in 5 waits`);
    }).pipe(Effect.provide(dawn), Effect.scoped, Effect.runPromise),
});

gpuTest("errors of the device say what could not be done and what helps", function* () {
  const gpu = yield* Gpu;
  const tooLarge = yield* Effect.flip(gpu.buffer("a tensor", 2 ** 50, STORAGE));
  assert.match(
    tooLarge.message,
    /^Cannot reserve 1073741824\.0 MiB for a tensor: .*\. Lower the batch size, /s,
  );
  assert.equal(tooLarge.kind, "memory");
  const invalid = yield* Effect.flip(gpu.pipeline("nonsense", "nonsense"));
  assert.match(invalid.message, /^Cannot compile the kernel nonsense: .*\. Please report this /s);
  assert.equal(invalid.kind, "kernel");

  const small = yield* gpu.buffer("small", 16, STORAGE);
  gpu.device.queue.writeBuffer(small, 8, new Float32Array(4)); // WebGPU reports this only later
  yield* Effect.sleep("50 millis");
  const late = yield* Effect.flip(gpu.check);
  assert.equal(late.kind, "run");
  yield* gpu.check; // told once
});
