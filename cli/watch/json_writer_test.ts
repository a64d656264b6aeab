import assert from "node:assert/strict";
import { jsonWriter } from "./json_writer.ts";

Deno.test("jsonWriter() writes numbers of any size with six digits, and whole ones with all", () => {
  const json = jsonWriter();
  const read = () => JSON.parse(new TextDecoder().decode(json.take()));
  const values = [
    0,
    1,
    -7,
    0.5,
    -1.5,
    1 / 3,
    2 / 3,
    123456.7,
    999999.5,
    1e6,
    123456789,
    -9.999996,
    1e30,
    -1e-30,
  ];
  for (let power = -29; power < 30; power++) {
    values.push(10 ** power, 1.234567 * 10 ** power, -9.99999 * 10 ** power);
  }
  for (const value of values) {
    json.number(value);
    const written = read();
    const wanted = Number(value.toPrecision(6));
    assert.ok(Math.abs(written - wanted) <= 1.01e-5 * Math.abs(wanted), `${value} is written as ${written}`);
    assert.ok(Math.abs(written - value) <= 5.01e-6 * Math.abs(value), `${value} is written as ${written}`);
  }
  for (const value of [NaN, Infinity, -Infinity, 1e308]) {
    json.number(value);
    assert.equal(read(), null);
  }
  json.number(5e-324);
  assert.equal(read(), 0);
  for (const value of [0, 9, 10, 1e9, 999_999_999, Number.MAX_SAFE_INTEGER, -10]) {
    json.integer(value);
    assert.equal(read(), value);
  }
});

Deno.test("jsonWriter() gives what was written since the last time, however long", () => {
  const json = jsonWriter();
  for (const text of ["größe €", "x".repeat(300_000), ""]) {
    json.text(JSON.stringify({ [text]: text }));
    assert.deepEqual(JSON.parse(new TextDecoder().decode(json.take())), { [text]: text });
  }
  assert.equal(json.take().length, 0);
});
