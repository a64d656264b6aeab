import assert from "node:assert/strict";
import { numbers } from "../_test_kit.ts";
import { scheduleWithin } from "./rematerialize.ts";
import type { ScheduledOp } from "./schedule_simulation.ts";

const MIB = 2 ** 20;
const work = (reads: readonly number[], bytes: number, cost: number): ScheduledOp => (
  { reads, bytes, cost, scratch: 0, repeatable: true, isResult: false }
);

/**
 * Training of a chain: layers of a costly product and a cheap function, whose results the way back reads; and what lies
 * between the two ways. Random sizes, where `seed` is given.
 */
const chain = (layers: number, seed?: number): ScheduledOp[] => {
  const random = numbers(4 * layers, seed ?? 1);
  const size = (i: number) => seed === undefined ? MIB : Math.ceil((1.1 + random[i]) * MIB);
  const works = [work([], MIB, 1)];
  for (let i = 0; i < layers; i++) {
    works.push(work([works.length - 1], size(i), 10 + 5 * random[2 * layers + i]));
    works.push(work([works.length - 1], size(i), 0.1));
  }
  for (let i = 0; i < 10; i++) works.push(work([works.length - 1], MIB / 4, 1));
  for (let i = layers - 1; i >= 0; i--) {
    const [input, product, made] = [2 * i, 2 * i + 1, 2 * i + 2];
    works.push(work([works.length - 1, product, made], size(i), 0.2));
    works.push({ ...work([works.length - 1, input], MIB / 64, 10), repeatable: false, isResult: true });
    works.push(work([works.length - 2], size(Math.max(0, i - 1)), 10));
  }
  return works;
};

/** Follows a schedule by the letter: fails where a result is read that is not there. */
const follow = (works: readonly ScheduledOp[], order: readonly number[]) => {
  const lastUse = new Map<string, number>();
  const latest = new Map<number, number>(); // of each work, where its latest result was made
  order.forEach((work, at) => {
    for (const read of works[work].reads) {
      assert.ok(latest.has(read), `work ${work} in place ${at} reads ${read}, which is not there`);
      lastUse.set(`${read} ${latest.get(read)}`, at);
    }
    latest.set(work, at);
    lastUse.set(`${work} ${at}`, works[work].isResult ? Infinity : at);
  });
  let peak = 0;
  for (const at of order.keys()) {
    let bytes = works[order[at]].scratch;
    for (let made = 0; made <= at; made++) {
      if (lastUse.get(`${order[made]} ${made}`)! >= at) bytes += works[order[made]].bytes;
    }
    peak = Math.max(peak, bytes);
  }
  const costOf = (works_: Iterable<number>) => [...works_].reduce((sum, i) => sum + works[i].cost, 0);
  return { peak, cost: costOf(order) - costOf(works.keys()), firsts: [...new Set(order)] };
};

Deno.test("scheduleWithin() keeps the order, what is read and the budget, whatever the sizes", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const works = chain(8, seed);
    const usual = follow(works, [...works.keys()]).peak;
    for (const share of [1, 0.8, 0.6]) {
      const { order, peak } = scheduleWithin(works, share * usual);
      const found = follow(works, order);
      assert.deepEqual(found.firsts, [...works.keys()]);
      assert.equal(found.peak, peak);
      assert.ok(peak <= share * usual, `seed ${seed}: ${peak} bytes within ${share} of ${usual}`);
      assert.ok(works.every(({ repeatable }, i) => repeatable || order.filter((j) => j === i).length === 1));
      if (share === 1) assert.equal(order.length, works.length);
    }
  }
});

Deno.test("scheduleWithin() makes cheap results again before costly ones, and no more than it has to", () => {
  const works = chain(16);
  const usual = follow(works, [...works.keys()]).peak;
  const cheap = follow(works, scheduleWithin(works, 0.6 * usual).order);
  assert.ok(cheap.cost > 0 && cheap.cost <= 1.6, `${cheap.cost}`); // sixteen cheap functions, once each
  const slight = follow(works, scheduleWithin(works, usual - MIB).order);
  assert.ok(slight.cost < 0.11, `${slight.cost}`); // one of them

  // All of the way there once more is the price of going down to about the square root of it.
  const layers = 64;
  const long = chain(layers);
  const { order, peak } = scheduleWithin(long, 2.5 * Math.sqrt(2 * layers) * MIB);
  assert.ok(peak <= 2.5 * Math.sqrt(2 * layers) * MIB, `${peak / MIB} MiB`);
  const once = long.slice(0, 2 * layers + 1).reduce((sum, { cost }) => sum + cost, 0);
  assert.ok(follow(long, order).cost <= 1.2 * once, `${follow(long, order).cost} of ${once}`);
});

Deno.test("scheduleWithin() comes as low as it can where the budget is too small, and finds that again", () => {
  const works = chain(12, 5);
  const least = scheduleWithin(works, MIB);
  assert.ok(least.peak > MIB && least.peak < 0.6 * follow(works, [...works.keys()]).peak);
  assert.equal(scheduleWithin(works, least.peak).peak, least.peak);
});
