import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest } from "../_test_kit.ts";
import { dawn } from "./adapters.ts";
import { Gpu, mapped, STORAGE } from "./gpu.ts";

Deno.test({
  name: "Dawn asks about once a millisecond whether the device is ready, not whenever it can",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    Effect.gen(function* () {
      const gpu = yield* Gpu;
      const size = 2 ** 26;
      const [from, to] = yield* Effect.all([1, 2].map((n) => gpu.buffer(`buffer ${n}`, size, STORAGE)));
      const read = yield* gpu.buffer("read", 4, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
      const encoder = gpu.device.createCommandEncoder();
      for (let i = 0; i < 10; i++) encoder.copyBufferToBuffer(from, 0, to, 0, size);
      encoder.copyBufferToBuffer(to, 0, read, 0, 4);

      const { setImmediate } = globalThis;
      let asked = 0;
      const counted = ((...args: Parameters<typeof setImmediate>) => {
        asked++;
        return setImmediate(...args);
      }) as typeof setImmediate;
      globalThis.setImmediate = counted;
      const begin = performance.now();
      gpu.device.queue.submit([encoder.finish()]);
      yield* mapped(read);
      const milliseconds = performance.now() - begin;
      globalThis.setImmediate = setImmediate;
      assert.ok(0 < asked && asked < 110 + milliseconds, `asked ${asked} times in ${milliseconds} ms`);
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
