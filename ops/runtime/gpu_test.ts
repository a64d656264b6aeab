import assert from "node:assert/strict";
import { Effect } from "effect";
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
