import assert from "node:assert/strict";
import { printable } from "./printable.ts";

Deno.test("printable() leaves letters of any language, and nothing that steers a terminal or turns the writing", () => {
  for (const plain of ["runs/coco 800", "größe <b> & 模型 🦉"]) assert.equal(printable(plain), plain);
  const shown = printable("a\x1b[31m\n\r\x07\x9b\u202eb\u2028\ud800c");
  assert.equal(shown, "a\ufffd[31m\ufffd\ufffd\ufffd\ufffd\ufffdb\ufffd\ufffdc");
  assert.ok(printable("x".repeat(10_000)).length <= 200);
});
