import assert from "node:assert/strict";
import { Effect } from "effect";
import { fillNormals, NORMAL_STEP, normalQuantiles } from "../../data/random/normals.ts";
import { gpuTest } from "../_test_kit.ts";
import { drawNormals } from "./draw_normals.ts";
import { Gpu, STORAGE } from "./gpu.ts";

/** Draws on the device and on the host, and compares bit by bit. */
const expectSame = Effect.fnUntraced(function* (
  cases: readonly { readonly count: number; readonly key: readonly number[]; readonly deviation: number }[],
) {
  const gpu = yield* Gpu;
  const draws = yield* Effect.forEach(
    cases,
    Effect.fnUntraced(function* ({ count, key, deviation }) {
      const buffers = [0, 1].map(() => gpu.buffer("normals", count * 4, STORAGE));
      return { buffers: yield* Effect.all(buffers), count, key, scale: deviation * NORMAL_STEP };
    }),
  );
  yield* drawNormals(draws, normalQuantiles());
  // The second buffer is a copy of the first one.
  const read = yield* yield* gpu.read(
    draws.map(({ buffers, count }) => ({ buffer: buffers[1], bytes: count * 4 })),
  );
  for (const [i, { count, key, deviation }] of cases.entries()) {
    const want = new Float32Array(count);
    fillNormals(want, key, deviation);
    const [got, bits] = [read[i], want.buffer].map((buffer) => new Uint32Array(buffer));
    const first = bits.findIndex((word, i) => word !== got[i]);
    assert.equal(first, -1, `number ${first} of ${count} under ${key}: ${new Float32Array(read[i])[first]}`);
  }
});

gpuTest("drawNormals() draws the bits of the host: odd lengths, words of a key at their ends", function* () {
  yield* expectSame([
    { count: 1, key: [0], deviation: 1 },
    { count: 3, key: [1, 2, 3], deviation: 0.02 },
    { count: 257, key: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], deviation: 1e-3 },
    { count: 64 * 3 * 7 * 7, key: [7, 1, 0x80000000], deviation: Math.sqrt(2 / (49 * 64)) },
    { count: 1_000_001, key: [0, 1, 2, 3, 4], deviation: 123.456 },
  ]);
});

gpuTest("drawNormals() draws more than one dimension of a grid can", function* () {
  yield* expectSame([{ count: 65535 * 64 * 4 + 5, key: [3, 1, 4], deviation: 0.5 }]);
});

gpuTest("drawNormals() goes on where a binding ends", function* () {
  const gpu = yield* Gpu;
  const narrow = { ...gpu, traits: { ...gpu.traits, maxBinding: 4100 } }; // 1024 numbers at once
  const cases = [1023, 1024, 5000].map((count, i) => ({ count, key: [9, i], deviation: 1 }));
  yield* expectSame(cases).pipe(Effect.provideService(Gpu, narrow));
});
