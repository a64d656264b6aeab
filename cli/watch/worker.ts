/** Serves the page of a run in a thread of its own: that of the run waits for the device most of the time. */
import { Effect } from "effect";
import { watchedRuns } from "./runs.ts";
import { type Address, serve } from "./server.ts";

export interface WatchRequest extends Address {
  readonly folder: string;
}
export type WatchReply = { readonly url: string } | { readonly problem: string };

const worker = self as unknown as {
  onmessage: (event: MessageEvent<WatchRequest>) => void;
  postMessage: (reply: WatchReply) => void;
};

worker.onmessage = ({ data: { folder, ...address } }) =>
  void Effect.runPromise(Effect.scoped(Effect.gen(function* () {
    const url = yield* serve({ runs: watchedRuns([folder]), curves: [] }, address);
    worker.postMessage({ url });
    yield* Effect.never;
  }))).catch((error) => worker.postMessage({ problem: (error as Error).message }));
