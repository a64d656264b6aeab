/** The worker that `serveInWorker` starts. */
import { Effect } from "effect";
import { UsageError } from "../flags/usage_error.ts";
import { watchedRuns } from "./runs.ts";
import { type Address, serve } from "./server.ts";

export interface WatchRequest extends Address {
  readonly folder: string;
}
export type WatchReply = { readonly url: string } | { readonly reason: string };

const worker = self as unknown as {
  onmessage: (event: MessageEvent<WatchRequest>) => void;
  postMessage: (reply: WatchReply) => void;
};

worker.onmessage = ({ data: { folder, ...address } }) =>
  void Effect.runPromise(Effect.scoped(Effect.gen(function* () {
    const { url } = yield* serve({ runs: watchedRuns([folder]), curves: [] }, address);
    worker.postMessage({ url });
    yield* Effect.never;
  }))).catch((error: UsageError | Error) =>
    worker.postMessage({ reason: error instanceof UsageError ? error.reason : error.message })
  );
