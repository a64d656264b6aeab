import assert from "node:assert/strict";
import { deviceTimeOf, intervals, secondsOf, type Span } from "./timestamps.ts";

/** Pulses of a device that counts ticks of so many nanoseconds, submitted at moments (ms) and begun some later. */
const pulses = (tick: number, late: readonly number[], zero = 5000) =>
  late.map((wait, i) => {
    const submitted = 100 + 25 * i;
    return { submitted, begin: BigInt(Math.round((zero + submitted + wait) * 1e6 / tick)) };
  });

Deno.test("deviceTimeOf() finds the offset of the host's clock, and how long a driver's own ticks are", () => {
  const standard = deviceTimeOf(pulses(1, [0.4, 0.1, 9]));
  assert.equal(standard.tick, 1); // though the last one was late
  assert.ok(Math.abs(standard.toHost - -5000.1) < 1e-6);
  const own = deviceTimeOf(pulses(83.3, [0.1, 3, 0.1]));
  assert.ok(Math.abs(own.tick - 83.3) < 0.1);
  assert.equal(deviceTimeOf(pulses(1, [0, 0, 0]).map((pulse) => ({ ...pulse, begin: 7n }))).tick, 1); // a clock that stands
});

Deno.test("intervals() counts no moment twice where a device overlaps spans, and secondsOf() adds up each stage", () => {
  const stamps = BigUint64Array.of(10n, 30n, 20n, 50n, 40n, 45n, 60n, 70n);
  const time = { tick: 1e6, toHost: 1000 }; // a tick is a millisecond
  const spans = ["a", "b", "b", "a"].map((stage) => ({ stage })) as unknown as readonly Span[];
  assert.deepEqual(intervals(stamps, time).map(({ begin, end }) => [begin, end]), [
    ...[[1010, 1030], [1030, 1050], [1050, 1050], [1060, 1070]],
  ]);
  assert.deepEqual(secondsOf(spans, stamps, time), { a: 0.03, b: 0.02 });
});
