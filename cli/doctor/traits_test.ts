import assert from "node:assert/strict";
import { Option } from "effect";
import { parseTraits } from "./traits.ts";

Deno.test("parseTraits() takes a typical adapter with changes, and nothing else", () => {
  const gpu = Option.getOrThrow(parseTraits("gpu"));
  assert.equal(gpu.cpu, false);
  assert.equal(Option.getOrThrow(parseTraits("cpu")).cpu, true);
  assert.deepEqual(
    Option.getOrThrow(parseTraits("gpu,min-subgroup-size=32,max-binding=128MiB,max-storage-buffers=8")),
    { ...gpu, minSubgroupSize: 32, maxBinding: 2 ** 27, maxStorageBuffers: 8 },
  );
  for (
    const text of [
      ...["", "GPU", "toString", "gpu,", "gpu,cpu", "gpu,cpu=1", "gpu,max-binding", "gpu,max-binding=much"],
      ...["gpu,min-subgroup-size=-4", "gpu,min-subgroup-size=", "gpu,max-storage-buffers=8.5"],
    ]
  ) {
    assert.ok(Option.isNone(parseTraits(text)), text);
  }
});
