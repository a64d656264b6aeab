/**
 * Says on standard error what a run does while its own thread is blocked: compiling a large step, or waiting for a slow
 * device in the first one. The run's thread sends the words a few times a second as long as it can.
 */

/** Milliseconds without a message after which the words are said, and again as long as none comes. */
const SILENCE_MS = 9000;

let words = "";
let heardAt = performance.now();

declare const self: { onmessage: (message: { readonly data: string }) => void };
self.onmessage = ({ data }) => {
  words = data;
  heardAt = performance.now();
};

setInterval(() => {
  if (performance.now() - heardAt < SILENCE_MS) return;
  heardAt = performance.now();
  try {
    Deno.stderr.writeSync(new TextEncoder().encode(`${words} …\n`));
  } catch {
    // Who reads it is gone.
  }
}, 250);
