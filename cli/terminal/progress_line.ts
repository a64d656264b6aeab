import { printableText } from "../../data/files/printable.ts";
import { voice } from "./voice.ts";

/** How far a command is: one line on standard error that is drawn over and over, where that is a terminal. */
export interface ProgressLine {
  /** Draws the line anew; does nothing where it was drawn a moment ago. */
  readonly show: (text: string) => void;
  /** Removes the line; the next one is drawn at once. */
  readonly clear: () => void;
  /** Prints a sentence above the line. */
  readonly say: (sentence: string) => void;
}

export const REDRAW_MS = 100;
export const CLEAR_LINE = "\r\x1b[K";

export const progressLine = (): ProgressLine => {
  let drawn = "", drawnAt = -Infinity;
  const draw = (text: string) => {
    if (!Deno.stderr.isTerminal()) return;
    Deno.stderr.writeSync(new TextEncoder().encode(`${CLEAR_LINE}${printableText(text)}`));
    drawn = text;
    voice.heard();
  };
  return {
    show: (text) => {
      if (performance.now() - drawnAt < REDRAW_MS) return;
      drawnAt = performance.now();
      draw(text);
    },
    clear: () => {
      drawnAt = -Infinity;
      draw("");
    },
    say: (sentence) => {
      const text = drawn;
      draw("");
      voice.heard();
      console.error(sentence);
      draw(text);
    },
  };
};
