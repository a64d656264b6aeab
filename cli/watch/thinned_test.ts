import assert from "node:assert/strict";
import { overview } from "./overview.ts";
import { type Thinned, thinned, type Thinning } from "./thinned.ts";

const table = (values: Readonly<Record<string, (step: number) => number>>, rows: number) => ({
  rows,
  steps: Float64Array.from({ length: rows }, (_, step) => step),
  columns: new Map(
    Object.entries(values).map(([name, f]) => [name, Float64Array.from({ length: rows }, (_, i) => f(i))]),
  ),
});
const ALL = { from: 0, to: Infinity, points: 1000, keep: "extremes", smoothing: null } as const;

Deno.test("thinned() keeps every spike of 200,000 steps, up and down, near its step", () => {
  const spikes = new Map([[123_456, 9], [77, -9], [199_999, 8]]);
  const { steps, columns: { loss } } = thinned(
    table({ loss: (i) => spikes.get(i) ?? Math.sin(i) }, 200_000),
    ALL,
  );
  assert.ok(steps.length <= 1000 && steps.length > 900);
  assert.ok(steps.every((step, i) => i === 0 || step >= steps[i - 1]));
  for (const [step, value] of spikes) {
    const places = loss.flatMap((each, i) => each === value ? [steps[i]] : []);
    assert.equal(places.length, 1);
    assert.ok(Math.abs(places[0] - step) <= 400, `${value} of step ${step} is drawn at ${places[0]}`);
  }
});

Deno.test("thinned() gives every row of a stretch that fits, and its neighbours, so that lines go on to the edge", () => {
  const { steps, columns } = thinned(table({ a: (i) => i * i, b: () => NaN }, 10_000), {
    ...ALL,
    from: 500,
    to: 600,
  });
  assert.deepEqual(steps, Array.from({ length: 103 }, (_, i) => 499 + i));
  assert.deepEqual(columns.a, steps.map((step) => Number((step * step).toPrecision(6))));
  assert.ok(columns.b.every((value) => value === null));
});

Deno.test("thinned() averages without a bias at the start, and sums what is to be summed", () => {
  const { smooth } = thinned(table({ a: () => 3 }, 5000), { ...ALL, smoothing: 100 });
  assert.ok(smooth.a.every((value) => value === 3));
  const noisy = thinned(table({ a: (i) => i % 2 }, 5000), { ...ALL, smoothing: 200 });
  assert.ok(Math.abs(noisy.smooth.a.at(-1)! - 0.5) < 0.01);
  const { columns } = thinned(table({ seconds: () => 2 }, 9000), { ...ALL, points: 20, keep: "sums" });
  assert.deepEqual(columns.seconds, new Array(10).fill(1800));
});

Deno.test("thinned() shows rows of many steps as it shows the steps themselves", () => {
  const [many, few] = [overview(() => 2 ** 24, 100_000), overview(() => 10_000)];
  for (let step = 0; step < 60_000; step++) {
    const line = { step, loss: step === 41_234 ? 50 : Math.sin(step / 5000) + step % 2, seconds: 2 };
    for (const rows of [many, few]) rows.add(line, 0);
  }
  assert.ok(many.table().merged === undefined && few.table().merged !== undefined);
  const both = (thinning: Thinning) => [many, few].map((rows) => thinned(rows.table(), thinning));

  const [wanted, got] = both({ ...ALL, smoothing: 1000 });
  for (const { steps, columns: { loss } } of [wanted, got]) {
    assert.deepEqual([steps[0], steps.at(-1)], [0, 59_999]);
    assert.ok(Math.abs(steps[loss.indexOf(50)] - 41_234) < 200);
  }
  const at = ({ steps, smooth: { loss } }: Thinned, step: number) =>
    loss[steps.findIndex((each) => each >= step)]!;
  for (const step of [5000, 30_000, 59_000]) {
    assert.ok(Math.abs(at(wanted, step) - at(got, step)) < 0.05, `at ${step}`);
  }
  const total = ({ columns: { seconds } }: Thinned) => seconds.reduce<number>((sum, each) => sum + each!, 0);
  assert.deepEqual(both({ ...ALL, points: 20, keep: "sums" }).map(total), [120_000, 120_000]);

  // The average of a stretch goes on from what was before.
  const rows = many.table();
  const from = { ...rows, rows: 10_000, steps: rows.steps.subarray(50_000), columns: new Map() };
  for (const [name, column] of rows.columns) from.columns.set(name, column.subarray(50_000));
  const [alone, after] = [undefined, few.table(2000)].map((before) =>
    thinned(from, { ...ALL, smoothing: 1000, before })
  );
  assert.ok(Math.abs(alone.smooth.loss[0]! - from.columns.get("loss")![0]) < 0.01);
  assert.equal(after.smooth.seconds[0], 2);
  assert.notEqual(after.smooth.loss[0], alone.smooth.loss[0]);
});
