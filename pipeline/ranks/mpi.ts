/**
 * Ranks over MPI, which has to be installed: it starts the processes (`mpirun`), on one machine or several, and carries
 * their messages. A single process does not load it.
 */
import { Cause, Effect, Exit, Layer } from "effect";
import { Collective, CollectiveError } from "../../ops/runtime/collective.ts";
import { type Launch, launchedAs, mpiLibraries, STDIN_OF_LAUNCHER } from "./launch.ts";
import type { Watched } from "./launcher_watch.ts";
import { type MpiLibrary, type MpiMissingError, openMpiLibrary, SERIALIZED } from "./mpi_library.ts";
import type { Environment } from "./shared_library.ts";

/** How ranks exchange. */
export interface RankOptions {
  /** Minutes that one exchange may wait for the other ranks. */
  readonly watchdogMinutes: number;
}

/**
 * The ranks that this process was started with, as the service Collective, until the scope ends; an empty layer where
 * the process is the only one.
 *
 * Exchanges take place one after the other in the order of their calls, on another thread than JavaScript's.
 * `allReduceSum` and `broadcast` write their result into the array that they are given. After a failure all later
 * exchanges fail, since the ranks no longer agree: the process must then end with a status other than 0, so that the
 * launcher ends the others. Fails with `MpiMissingError` or `CollectiveError`.
 */
export const ranks = (
  options: RankOptions,
  env: Environment = (name) => Deno.env.get(name),
): Layer.Layer<never, MpiMissingError | CollectiveError> => {
  const launch = launchedAs(env);
  if (launch === null) return Layer.empty;
  return Layer.effect(
    Collective,
    openMpiLibrary(mpiLibraries(launch, env)).pipe(
      Effect.tap(({ path }) =>
        launch.rank === 0 && env(STDIN_OF_LAUNCHER) !== undefined ? endedWithStdin(path) : Effect.void
      ),
      Effect.flatMap((library) => joined(launch, library, options)),
    ),
  );
};

/** Has this process end when standard input does, until the scope ends. */
const endedWithStdin = (library: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const worker = new Worker(new URL("./launcher_watch.ts", import.meta.url), { type: "module" });
      worker.postMessage({ library } satisfies Watched);
      return worker;
    }),
    (worker) => Effect.sync(() => worker.terminate()),
  );

const joined = Effect.fnUntraced(
  function* ({ by, rank, world }: Launch, library: MpiLibrary, { watchdogMinutes }: RankOptions) {
    const { functions: mpi, constants } = library;
    const exchange = oneAfterTheOther(rank, library);

    const granted = new Int32Array(1);
    const join = () => mpi.MPI_Init_thread(null, null, SERIALIZED, granted);
    yield* Effect.acquireRelease(
      exchange("join the other ranks", watchdogMinutes, [join]),
      // A rank that failed does not finalise, so that the launcher ends the others. One that was interrupted may be
      // the only one.
      (_, exit) => {
        if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) return Effect.void;
        const minutes = Exit.isSuccess(exit) ? watchdogMinutes : Math.min(watchdogMinutes, 0.5);
        return Effect.ignore(exchange("take leave of the other ranks", minutes, [mpi.MPI_Finalize]));
      },
    );
    mpi.MPI_Comm_set_errhandler(constants.world, constants.errorsReturn);
    const found = new Int32Array(2);
    mpi.MPI_Comm_rank(constants.world, found);
    mpi.MPI_Comm_size(constants.world, found.subarray(1));
    if (found[0] !== rank || found[1] !== world) {
      const reason = `${by} started it as one of ${world}, but ${library.path} (${library.version}) says ` +
        `rank ${found[0]} of ${
          found[1]
        }: SLOTCON_MPI_LIBRARY must name the library that belongs to the launcher`;
      return yield* new CollectiveError({ rank, subject: "join the other ranks", reason });
    }
    if (granted[0] < SERIALIZED) {
      const reason = `${library.version} was built without support for threads`;
      return yield* new CollectiveError({ rank, subject: "join the other ranks", reason });
    }
    return shape(rank, world, library, (during, calls) => exchange(during, watchdogMinutes, calls));
  },
);

type Call = () => Promise<number>;

/**
 * Makes calls of MPI, one at a time. A call is made even if nothing waits for it here any more, since the other ranks
 * wait for it.
 */
const oneAfterTheOther = (rank: number, library: MpiLibrary) => {
  let last: Promise<unknown> = Promise.resolve();
  let failure: CollectiveError | null = null;

  const made = async (during: string, minutes: number, call: Call) => {
    if (failure !== null) return;
    const fail = (reason: string) => failure ??= new CollectiveError({ rank, subject: during, reason });
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const watchdog = setTimeout(resolve, minutes * 60_000);
    await Promise.race([
      Promise.try(call).then(
        (code) => code === 0 || fail(library.textOf(code)),
        (error) => fail(String(error)),
      ),
      late.then(() =>
        fail(`it has waited ${inMinutes(minutes)} for the others, one of which hangs or is gone`)
      ),
    ]);
    clearTimeout(watchdog);
  };

  return (during: string, minutes: number, calls: readonly Call[]): Effect.Effect<void, CollectiveError> =>
    Effect.callback<void, CollectiveError>((resume) => {
      for (const call of calls) last = last.then(() => made(during, minutes, call));
      last.then(() => resume(failure === null ? Effect.void : Effect.fail(failure)));
    }).pipe(Effect.uninterruptible);
};

const inMinutes = (minutes: number) => minutes < 1 ? `${Math.round(60 * minutes)} s` : `${minutes} min`;

/** The most numbers of one message: MPI counts them in 31 bits. */
const LARGEST = 2 ** 28;

const shape = (
  rank: number,
  world: number,
  { functions: mpi, constants: { world: all, float, byte, sum, inPlace } }: MpiLibrary,
  exchange: (during: string, calls: readonly Call[]) => Effect.Effect<void, CollectiveError>,
): Collective => ({
  rank,
  world,
  allReduceSum: (own) =>
    exchange(
      `sum ${own.length} numbers over the ranks`,
      pieces(own, LARGEST).map((piece) => () =>
        mpi.MPI_Allreduce(inPlace, piece, piece.length, float, sum, all)
      ),
    ).pipe(Effect.as(own)),
  allGather: (own) =>
    Effect.suspend(() => {
      const gathered = new Float32Array(world * own.length);
      const [from] = pieces(own, Infinity);
      return exchange(`gather ${own.length} numbers of every rank`, [
        () => mpi.MPI_Allgather(from, own.length, float, gathered, own.length, float, all),
      ]).pipe(Effect.as(gathered));
    }),
  broadcast: (bytes) =>
    exchange(
      `receive ${bytes.length} bytes of rank 0`,
      pieces(bytes, LARGEST).map((piece) => () => mpi.MPI_Bcast(piece, piece.length, byte, 0, all)),
    ).pipe(Effect.as(bytes)),
  barrier: exchange("wait for the other ranks", [() => mpi.MPI_Barrier(all)]),
});

/**
 * The array in pieces of at most `length` elements. Reading `buffer` moves a small array off V8's heap, where its
 * address is fixed.
 */
const pieces = <A extends Float32Array | Uint8Array>(
  array: A,
  length: number,
): (A & { buffer: ArrayBuffer })[] => {
  void array.buffer;
  const found = [];
  for (let at = 0; at === 0 || at < array.length; at += length) found.push(array.subarray(at, at + length));
  return found as (A & { buffer: ArrayBuffer })[];
};
