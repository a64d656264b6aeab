/**
 * A contender is a process that does what it is told over its standard input, a line of JSON a request, and answers
 * likewise: `{"prepare": <place in CASES>}` by some numbers of its answer, `{"run": <count>}` by what that took. When it
 * is ready it says `{}`.
 */
import { type Case, CASES } from "./cases.ts";

export interface Prepared {
  /** The answer, channels-last; the losses of the first steps for a training step. */
  readonly answer: ArrayLike<number>;
  /** Does the work so many times and waits for the last of them; some say what is known of the device meanwhile. */
  readonly run: (count: number) => Promise<DeviceUse | void>;
  /** Gives its memory back. */
  readonly end: () => void;
}

/** What a run took of the device. */
export interface DeviceUse {
  /** Milliseconds of the last run; null if the adapter has no clock. */
  readonly device: number | null;
  /** Bytes that were reserved. */
  readonly planned: number;
}

/** What runs took: all of them in milliseconds, the process in bytes of resident memory, and of the device. */
export interface Taken extends Partial<DeviceUse> {
  readonly milliseconds: number;
  readonly resident: number;
}

export type Contender = (work: Case) => Promise<Prepared>;

export type Request = { readonly prepare: number } | { readonly run: number };
export type Reply = { readonly sample: readonly number[] } | Taken | { readonly error: string };

const SAMPLE = 64;

/** Numbers from all over the answer. */
const sampleOf = (answer: ArrayLike<number>): number[] => {
  const count = Math.min(SAMPLE, answer.length);
  return Array.from({ length: count }, (_, i) => answer[Math.floor(answer.length * i / count)]);
};

export const serve = async (contender: Contender): Promise<void> => {
  let current: Prepared | null = null;
  const reply = async (request: Request): Promise<Reply> => {
    if ("prepare" in request) {
      current?.end();
      current = null;
      current = await contender(CASES[request.prepare]);
      return { sample: sampleOf(current.answer) };
    }
    const start = performance.now();
    const device = await current!.run(request.run);
    return { milliseconds: performance.now() - start, resident: Deno.memoryUsage().rss, ...device };
  };
  console.log("{}");
  for await (const line of linesOf(Deno.stdin.readable)) {
    const answer = await reply(JSON.parse(line)).catch((error): Reply => ({
      error: error instanceof Error ? error.message : String(error),
    }));
    console.log(JSON.stringify(answer));
  }
};

export async function* linesOf(bytes: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of bytes.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}
