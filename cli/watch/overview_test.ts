import assert from "node:assert/strict";
import { overview } from "./overview.ts";

const line = (step: number) => ({
  step,
  loss: step === 77_777 ? -9 : step % 10,
  odd: step % 2 ? 1 : null,
});

Deno.test("overview() keeps mean, smallest and largest value of many steps in few numbers", () => {
  const rows = overview(() => 20_000);
  for (let step = 0; step < 100_000; step++) assert.ok(rows.add(line(step), 10 * step));
  assert.ok(rows.numbers() <= 20_000);
  const { rows: count, steps, columns, merged } = rows.table();
  assert.ok(count > 500 && merged !== undefined);
  const size = merged.counts[0];
  assert.deepEqual([...steps], Array.from({ length: count }, (_, i) => i * size));
  assert.deepEqual([...rows.places()], Array.from({ length: count }, (_, i) => 10 * i * size));
  assert.equal(merged.lasts[count - 1], 99_999);
  assert.equal(merged.counts.reduce((sum, each) => sum + each), 100_000);
  for (const i of [0, 1, count - 2]) {
    const values = Array.from({ length: size }, (_, j) => (i * size + j) % 10);
    assert.ok(Math.abs(columns.get("loss")![i] - values.reduce((sum, each) => sum + each) / size) < 1e-9);
    assert.equal(columns.get("odd")![i], 1); // the mean of the steps that have it
    assert.deepEqual([merged.lows.get("loss")![i], merged.highs.get("loss")![i]], [0, 9]);
  }
  assert.equal(merged.lows.get("loss")![Math.floor(77_777 / size)], -9);
  assert.deepEqual([rows.lastStep(), rows.latest()], [99_999, { loss: 9, odd: 1 }]);
});

Deno.test("overview() shrinks where less is allowed later, and lets a repeated step replace what follows it", () => {
  let most = 100_000;
  const rows = overview(() => most);
  for (let step = 0; step < 4000; step++) rows.add({ step, loss: step }, step);
  assert.equal(rows.table().merged, undefined);
  most = 2000;
  rows.fit();
  assert.ok(rows.numbers() <= 2000);
  assert.equal(rows.table().merged!.counts.reduce((sum, each) => sum + each), 4000);

  rows.add({ step: 2000, loss: -5 }, 0);
  const { rows: count, columns, merged } = rows.table();
  assert.equal(merged!.lasts[count - 1], 2000);
  assert.ok(merged!.lasts[count - 2] < 2000);
  assert.equal(columns.get("loss")![count - 1], -5);
  assert.ok(columns.get("loss")!.subarray(count).every(Number.isNaN));
});

Deno.test("overview() takes no more columns than it says, and nothing that cannot be drawn", () => {
  const rows = overview(() => 2 ** 19);
  for (const step of [-1, 0.5, 1e10, NaN, "1", null, undefined]) assert.ok(!rows.add({ step, loss: 1 }, 0));
  for (const value of [null, undefined, 3, "x", [], {}]) assert.ok(!rows.add(value, 0));

  let deep: unknown = 1;
  for (let i = 0; i < 10_000; i++) deep = { deep };
  const inner = { a: { b: { c: 1 } }, list: [1], text: "x", huge: 1e308, deep };
  assert.ok(rows.add({ step: 0, loss: 1, ["__proto__"]: 2, constructor: 3, ...inner }, 0));
  assert.deepEqual([...rows.table().columns.keys()].sort(), ["__proto__", "a.b.c", "constructor", "loss"]);
  assert.ok(!rows.leftOut());

  for (let step = 1; step < 50; step++) {
    const more = Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`key${step * 3000 + i}`, i]));
    rows.add({ step, loss: step, ["x".repeat(10_000)]: 1, ...more }, step);
  }
  assert.equal(rows.table().columns.size, 100);
  assert.ok(rows.leftOut() && rows.numbers() <= 2 ** 19);
  assert.equal(rows.latest().loss, 49);
});
