import { Deferred, Effect, Schema } from "effect";

/** A worker cannot go on: not over a picture, which it would report, but over itself. */
export class WorkerError extends Schema.TaggedError<WorkerError>()("WorkerError", {
  reason: Schema.String,
}) {
  override get message() {
    return `A decoding worker stopped: ${this.reason}`;
  }
}

/** What a worker sends back to the request with this number. */
interface Reply {
  readonly id: number;
  readonly kind: string;
}
interface Failure extends Reply {
  readonly kind: "failure";
  readonly reason: string;
}

/**
 * A worker that ends with the scope, as the function from a request to its reply. Requests get a number, `id`, which
 * replies repeat; a reply of kind "failure" is an error.
 */
export const requester = <Request, Answer extends Reply>(url: URL) =>
  Effect.gen(function* () {
    type Made = Exclude<Answer, Failure>;
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(url, { type: "module" })),
      (worker) => Effect.sync(() => worker.terminate()),
    );
    const crash = yield* Deferred.make<never, WorkerError>();
    worker.onerror = (event) => {
      event.preventDefault(); // or it would end the whole program
      Deferred.doneUnsafe(crash, new WorkerError({ reason: event.message }));
    };
    const waiting = new Map<number, (reply: Effect.Effect<Made, WorkerError>) => void>();
    worker.onmessage = ({ data: reply }: MessageEvent<Made | Failure>) => {
      const failed = (reply: Made | Failure): reply is Failure => reply.kind === "failure";
      waiting.get(reply.id)?.(
        failed(reply) ? new WorkerError({ reason: reply.reason }) : Effect.succeed(reply),
      );
      waiting.delete(reply.id);
    };
    let requests = 0;
    return (request: Request) =>
      Effect.callback<Made, WorkerError>((resume) => {
        const id = requests++;
        waiting.set(id, resume);
        worker.postMessage({ ...request, id });
      }).pipe(Effect.raceFirst(Deferred.await(crash)));
  });
