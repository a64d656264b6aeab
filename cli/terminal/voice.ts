/**
 * Says on standard error what a command does, wherever nothing else would be said for long. A worker speaks, since the
 * thread of the command may be blocked for minutes, by a driver that compiles or a device that is waited for. Nothing is
 * imported here, so that it speaks before the program is loaded.
 */

/** What the worker is told: what the command does now, or (null) that something was just written. */
export type Message = string | null;

let speaks = false;
let worker: Worker | null = null; // while there is something to say
let doing = "";

const tell = (message: Message) => {
  if (message !== null && speaks) {
    worker ??= new Worker(new URL("./voice_worker.ts", import.meta.url), { type: "module" });
  }
  worker?.postMessage(message);
};

export const voice = {
  /** Begins to speak: in a second, unless something is written before. */
  start: (words: string): void => {
    speaks = true;
    voice.doing(words);
  },
  /** What the command does from now on; "" where all is said by others. */
  doing: (words: string): void => {
    if (words === doing) return;
    doing = words;
    if (words !== "") return tell(words);
    worker?.terminate();
    worker = null;
  },
  /** How far that is. */
  soFar: (words: string): void => {
    if (doing !== "") tell(`${doing}: ${words} so far`);
  },
  /** Something was written. */
  heard: (): void => tell(null),
};
