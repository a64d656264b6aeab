/**
 * Says on standard error what a command does, wherever nothing else would be said for long. A worker speaks, since the
 * thread of the command may be blocked for minutes, by a driver that compiles or a device that is waited for. Nothing is
 * imported here, so that it speaks before the program is loaded.
 */

/** What the worker is told: what the command does now, or (null) that something was just written. */
export type Message = string | null;

let worker: Worker | null = null;
let doing = "";
const tell = (message: Message) => worker?.postMessage(message);

export const voice = {
  /** Begins to speak: in a second, unless something is written before. */
  start: (words: string): void => {
    worker = new Worker(new URL("./voice_worker.ts", import.meta.url), { type: "module" });
    voice.doing(words);
  },
  /** What the command does from now on; "" where all is said by others. */
  doing: (words: string): void => {
    if (words !== doing) tell(doing = words);
  },
  /** How far that is. */
  soFar: (words: string): void => tell(doing === "" ? "" : `${doing}: ${words} so far`),
  /** Something was written. */
  heard: (): void => tell(null),
  /** Ends it, so that the process can end. */
  end: (): void => {
    worker?.terminate();
    worker = null;
  },
};
