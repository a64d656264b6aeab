/**
 * When Dawn looks whether the device is done.
 *
 * Dawn knows no other way to wait than to poll: it makes a native function and gives it to `setImmediate`, and that
 * function, when it is called, makes the next one. Of each of them Deno 2.9 keeps 32 bytes until the process ends, and
 * it collects their objects as garbage so slowly that many of them stop a process for seconds. So a wait has few polls:
 * the first when it may be over, judged by the waits before, and each later one after an eighth of the time so far.
 */

/** Waits before, of which the shortest says how long one takes at least. */
const WAITS = 4;
/** The part of that time after which the device is asked first. */
const FIRST = 0.75;
/** The part of the time so far that passes until it is asked again. */
const NEXT = 1 / 8;
/** Milliseconds between two polls, at least. */
const LEAST = 0.02;
/** Milliseconds; timers are no finer. */
const TIMER = 1;

/** Milliseconds from a poll of a wait to the next; `elapsed` is 0 before the first. */
export const pollDelay = (elapsed: number, waits: readonly number[]): number =>
  Math.max(elapsed > 0 ? NEXT * elapsed : FIRST * Math.min(...waits), LEAST);

const { setImmediate: schedule } = globalThis; // undefined in a browser, where Dawn is not loaded
const waits = new Array<number>(WAITS).fill(0); // milliseconds that the last ones took
let begin: number | null = null; // of the wait in progress
let isPolled = false; // whether a poll of it is scheduled

const poll = (f: () => void) => {
  isPolled = false;
  f();
  if (isPolled || begin === null) return;
  waits.shift(); // it has scheduled no further poll: the wait is over
  waits.push(performance.now() - begin);
  begin = null;
};

const schedulePoll = (f: () => void) => {
  const now = performance.now();
  const delay = pollDelay(begin === null ? 0 : now - begin, waits);
  begin ??= now;
  isPolled = true;
  const due = now + delay;
  const pollWhenDue = () => performance.now() < due ? schedule(pollWhenDue) : poll(f);
  return delay < TIMER ? schedule(pollWhenDue) : setTimeout(poll, delay, f);
};

const isNative = (f: unknown) => /\[native code\]/.test(Function.prototype.toString.call(f));

/** `setImmediate` for Dawn: polls are spread as `pollDelay` says, all else is scheduled as before. */
export const setImmediateForDawn =
  ((f: (...args: unknown[]) => void, ...args: unknown[]) =>
    isNative(f) ? schedulePoll(f) : schedule(f, ...args)) as typeof schedule;
