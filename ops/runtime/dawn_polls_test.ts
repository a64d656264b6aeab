import assert from "node:assert/strict";
import { pollDelay } from "./dawn_polls.ts";

/** The polls of a wait that takes so many milliseconds after `waits`, and how late the last of them is. */
const polled = (milliseconds: number, waits: readonly number[]) => {
  let [at, polls] = [0, 0];
  for (; at < milliseconds; polls++) at += pollDelay(at, waits);
  return { polls, late: at - milliseconds };
};

Deno.test("pollDelay() polls a wait like those before a few times, any other some dozens, and none late", () => {
  for (const took of [0.1, 1, 10, 100, 1000, 60_000]) {
    for (const now of [0.9 * took, took, 1.1 * took]) {
      const { polls, late } = polled(now, [3 * took, took, 2 * took, took]);
      assert.ok(polls <= 5 && late <= now / 8 + 0.02, `${polls} polls, ${late} ms late after ${now}`);
    }
    const { polls, late } = polled(took, [0, took]);
    assert.ok(polls <= 130 && late <= took / 8 + 0.02, `${polls} polls, ${late} ms late after ${took}`);
  }
});
