import assert from "node:assert/strict";
import { release } from "./release.ts";

Deno.test("release() empties arrays, but not those that share their memory with others", () => {
  const whole = new Uint32Array(4);
  const bytes = new Uint8Array(8);
  release(whole, bytes.subarray(4));
  assert.equal(whole.length, 0);
  assert.equal(bytes.length, 8);
});
