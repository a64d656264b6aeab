/** Serves the page of a run while it trains: in a worker, since the main thread is blocked by the device most of the time. */
import { Deferred, Effect } from "effect";
import { UsageError } from "../flags/usage_error.ts";
import { LOCALHOST } from "./server.ts";
import type { WatchReply, WatchRequest } from "./worker.ts";

/** Serves the page of the run in a folder until the scope ends; its URL. Fails with a `UsageError` where it cannot. */
export const serveInWorker = Effect.fn("serveInWorker")(function* (folder: string) {
  const reply = yield* Deferred.make<string, UsageError>();
  const worker = yield* Effect.acquireRelease(
    Effect.sync(() => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" })),
    (worker) => Effect.sync(() => worker.terminate()),
  );
  const fail = (reason: string) =>
    Deferred.doneUnsafe(reply, Effect.fail(new UsageError({ subject: "--watch", reason })));
  worker.onmessage = ({ data }: MessageEvent<WatchReply>) =>
    "url" in data ? Deferred.doneUnsafe(reply, Effect.succeed(data.url)) : fail(data.reason);
  worker.onerror = (event) => {
    event.preventDefault(); // the run goes on without its page
    fail(event.message);
  };
  worker.postMessage({ folder, hostname: LOCALHOST, port: 0 } satisfies WatchRequest);
  return yield* Deferred.await(reply);
});
