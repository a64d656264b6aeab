/** Worker threads that answer requests. */
import { Data, Deferred, Effect, type Scope } from "effect";

/** A worker cannot go on, for a reason of its own: images that cannot be decoded are part of its replies. */
export class WorkerError extends Data.Error<{
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "WorkerError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `A decoding worker stopped: ${this.reason}`;
  }
}

/** The answer of a worker to the request with this number. */
export interface Reply {
  /** The number of the request. */
  readonly id: number;
  /** Tells replies apart; "failure" has a reason, and is an error. */
  readonly kind: string;
}
interface Failure extends Reply {
  readonly kind: "failure";
  readonly reason: string;
}

/** What the names of modules end in: ".js" in a published package. */
const SUFFIX = import.meta.url.slice(import.meta.url.lastIndexOf("."));

/**
 * A worker that runs the module at `url` until the scope ends, as the function from a request to its reply. Each
 * request gets a number, `id`, which the reply repeats. The function fails with a `WorkerError` where the reply is of
 * kind "failure", or the worker crashes.
 */
export const requester = <Request, Answer extends Reply>(
  url: URL,
): Effect.Effect<
  (request: Request) => Effect.Effect<Exclude<Answer, Failure>, WorkerError>,
  never,
  Scope.Scope
> =>
  Effect.gen(function* () {
    type Made = Exclude<Answer, Failure>;
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(url.href.replace(/\.ts$/, SUFFIX), { type: "module" })),
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

/** A worker's end of the channel to the main thread. */
interface WorkerChannel<Request> {
  onmessage: ((message: { readonly data: Request }) => void) | null;
  postMessage(reply: Reply, transfer: readonly ArrayBufferLike[]): void;
}

/**
 * Makes this thread a worker that answers requests one after the other, however many there are: only one at a time takes
 * memory. The arrays of a reply are transferred, not copied; a defect becomes a reply of kind "failure".
 */
export const answerRequests = <Request extends { readonly id: number }, Answer extends Reply>(
  answer: (request: Request) => Effect.Effect<Answer>,
  arraysOf: (reply: Answer) => readonly ArrayBufferView[],
): void => {
  const channel = globalThis as unknown as WorkerChannel<Request>;
  let queue = Promise.resolve();
  channel.onmessage = ({ data: request }) => {
    queue = queue.then(async () => {
      const reply = await Effect.runPromise(answer(request)).catch((error): Failure => (
        { id: request.id, kind: "failure", reason: String(error) }
      ));
      const arrays = reply.kind === "failure" ? [] : arraysOf(reply as Answer);
      channel.postMessage(reply, arrays.map(({ buffer }) => buffer));
    });
  };
};
