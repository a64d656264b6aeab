import assert from "node:assert/strict";
import { thinned } from "./thinned.ts";

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
