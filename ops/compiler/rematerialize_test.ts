import assert from "node:assert/strict";
import { numbers } from "../_test_kit.ts";
import { scheduleWithin } from "./rematerialize.ts";
import type { ScheduledOp } from "./schedule_simulation.ts";

const MIB = 2 ** 20;
const op = (reads: readonly number[], bytes: number, cost: number): ScheduledOp => (
  { reads, bytes, cost, scratch: 0, repeatable: true, isResult: false }
);

/**
 * Training of a chain: layers of a costly product and a cheap function, whose results the backward pass reads; and ten
 * ops between the two passes. Random sizes, where `seed` is given.
 */
const chain = (layers: number, seed?: number): ScheduledOp[] => {
  const random = numbers(4 * layers, seed ?? 1);
  const size = (i: number) => seed === undefined ? MIB : Math.ceil((1.1 + random[i]) * MIB);
  const ops = [op([], MIB, 1)];
  for (let i = 0; i < layers; i++) {
    ops.push(op([ops.length - 1], size(i), 10 + 5 * random[2 * layers + i]));
    ops.push(op([ops.length - 1], size(i), 0.1));
  }
  for (let i = 0; i < 10; i++) ops.push(op([ops.length - 1], MIB / 4, 1));
  for (let i = layers - 1; i >= 0; i--) {
    const [input, product, made] = [2 * i, 2 * i + 1, 2 * i + 2];
    ops.push(op([ops.length - 1, product, made], size(i), 0.2));
    ops.push({ ...op([ops.length - 1, input], MIB / 64, 10), repeatable: false, isResult: true });
    ops.push(op([ops.length - 2], size(Math.max(0, i - 1)), 10));
  }
  return ops;
};

/** Follows a schedule step by step: fails where a result is read that is not there. */
const follow = (ops: readonly ScheduledOp[], order: readonly number[]) => {
  const lastUse = new Map<string, number>();
  const latest = new Map<number, number>(); // for each op the step of its latest result
  order.forEach((op, at) => {
    for (const read of ops[op].reads) {
      assert.ok(latest.has(read), `op ${op} at step ${at} reads ${read}, which is not there`);
      lastUse.set(`${read} ${latest.get(read)}`, at);
    }
    latest.set(op, at);
    lastUse.set(`${op} ${at}`, ops[op].isResult ? Infinity : at);
  });
  let peak = 0;
  for (const at of order.keys()) {
    let bytes = ops[order[at]].scratch;
    for (let made = 0; made <= at; made++) {
      if (lastUse.get(`${order[made]} ${made}`)! >= at) bytes += ops[order[made]].bytes;
    }
    peak = Math.max(peak, bytes);
  }
  const costOf = (some: Iterable<number>) => [...some].reduce((sum, i) => sum + ops[i].cost, 0);
  return { peak, cost: costOf(order) - costOf(ops.keys()), firsts: [...new Set(order)] };
};

Deno.test("scheduleWithin() keeps the order, what is read and the budget, whatever the sizes", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const ops = chain(8, seed);
    const usual = follow(ops, [...ops.keys()]).peak;
    for (const share of [1, 0.8, 0.6]) {
      const { order, peak } = scheduleWithin(ops, share * usual);
      const found = follow(ops, order);
      assert.deepEqual(found.firsts, [...ops.keys()]);
      assert.equal(found.peak, peak);
      assert.ok(peak <= share * usual, `seed ${seed}: ${peak} bytes within ${share} of ${usual}`);
      assert.ok(ops.every(({ repeatable }, i) => repeatable || order.filter((j) => j === i).length === 1));
      if (share === 1) assert.equal(order.length, ops.length);
    }
  }
});

Deno.test("scheduleWithin() makes cheap results again before costly ones, and no more than it has to", () => {
  const ops = chain(16);
  const usual = follow(ops, [...ops.keys()]).peak;
  const cheap = follow(ops, scheduleWithin(ops, 0.6 * usual).order);
  assert.ok(cheap.cost > 0 && cheap.cost <= 1.6, `${cheap.cost}`); // sixteen cheap functions, once each
  const slight = follow(ops, scheduleWithin(ops, usual - MIB).order);
  assert.ok(slight.cost < 0.11, `${slight.cost}`); // one of them

  // All of the forward pass once more is the price of going down to about the square root of it.
  const layers = 64;
  const long = chain(layers);
  const { order, peak } = scheduleWithin(long, 2.5 * Math.sqrt(2 * layers) * MIB);
  assert.ok(peak <= 2.5 * Math.sqrt(2 * layers) * MIB, `${peak / MIB} MiB`);
  const once = long.slice(0, 2 * layers + 1).reduce((sum, { cost }) => sum + cost, 0);
  assert.ok(follow(long, order).cost <= 1.2 * once, `${follow(long, order).cost} of ${once}`);
});

Deno.test("scheduleWithin() comes as low as it can where the budget is too small, and finds that again", () => {
  const ops = chain(12, 5);
  const least = scheduleWithin(ops, MIB);
  assert.ok(least.peak > MIB && least.peak < 0.6 * follow(ops, [...ops.keys()]).peak);
  assert.equal(scheduleWithin(ops, least.peak).peak, least.peak);
});
