import assert from "node:assert/strict";
import { printable, printableText } from "./printable.ts";

const HOSTILE = "a\x1b[31m\r\x07\x9b\u202eb\u2028\ud800c\u{e0041}";
const SHOWN = "a\\u001b[31m\\u000d\\u0007\\u009b\\u202eb\\u2028\\ud800c\\udb40\\udc41";

Deno.test("printable() leaves letters of any language, and nothing that steers a terminal or turns the writing", () => {
  for (const plain of ["runs/coco 800", "größe <b> & 模型 🦉", "می\u200cخواهم"]) {
    assert.equal(printable(plain), plain);
    assert.equal(printableText(plain), plain);
  }
  assert.equal(printable(`${HOSTILE}\n`), `${SHOWN}\\u000a`);
  assert.ok(printable("x".repeat(10_000)).length <= 200);
});

Deno.test("printableText() keeps lines, and what JSON says", () => {
  assert.equal(printableText(`1\n\t${HOSTILE}`), `1\n\t${SHOWN}`);
  assert.equal(JSON.parse(printableText(JSON.stringify(HOSTILE))), HOSTILE);
});
