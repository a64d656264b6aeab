/** Speaks for a command: see voice.ts. */
import { printableText } from "../../data/files/printable.ts";
import type { Message } from "./voice.ts";

/** Milliseconds without a word until the first one, and from then on. */
const FIRST_WORD_MS = 800, SILENCE_MS = 9000;

let words = "";
let silence = FIRST_WORD_MS;
let spokeAt = performance.now();
const spoken = () => {
  spokeAt = performance.now();
  silence = SILENCE_MS;
};

declare const self: { onmessage: (message: { readonly data: Message }) => void };
self.onmessage = ({ data }) => {
  if (data === null) spoken();
  else words = data;
};

const CLEAR_LINE = Deno.stderr.isTerminal() ? "\r\x1b[K" : ""; // a line of progress may be drawn there
setInterval(() => {
  if (words === "" || performance.now() - spokeAt < silence) return;
  spoken();
  try {
    Deno.stderr.writeSync(new TextEncoder().encode(`${CLEAR_LINE}${printableText(words)} …\n`));
  } catch {
    // Who reads it is gone.
  }
}, 100);
