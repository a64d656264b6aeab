/** Programs for several shapes over one state: compiled when first needed, kept in a bounded set, in one arena. */
import { Effect, Exit, Scope, Semaphore } from "effect";
import type { Graph } from "../compiler/graph.ts";
import type { PlanError } from "../compiler/limits.ts";
import { makeArena } from "./arena.ts";
import type { DeviceState } from "./buffers.ts";
import { Gpu, type GpuError } from "./gpu.ts";
import { compile, type Program } from "./program.ts";

/**
 * A bounded set of programs. Device memory holds the state once, transient memory and batch inputs of the largest
 * program, and of each program its constants, the uniforms of its kernels, and its outputs in flight. Compiled
 * pipelines stay with the device.
 */
export interface ProgramSet {
  /**
   * The program of a key such as "800×1088": the one in the set, or `graph` compiled and added, in place of the least
   * recently used where the set is full. A program that has left the set cannot be run any more, so get it anew for
   * each run; runs that it has submitted can still be read. Fails as `compile` does.
   */
  readonly get: (key: string, graph: () => Graph) => Effect.Effect<Program, GpuError | PlanError>;
  /** The keys of the programs in the set, the least recently used first. */
  readonly keys: () => readonly string[];
}

/** A program of the set, and its runs that are submitted but unread. */
interface Entry {
  readonly program: Program;
  readonly scope: Scope.Closeable;
  unread: number;
  /** It has left the set, and is closed when its last run has been read. */
  evicted: boolean;
}

/**
 * An empty set for at most `capacity` programs over `state`, until the scope ends. The programs share state by the
 * names of their inputs; their graphs have to update the same tensors in the same shapes.
 */
export const programSet: (
  state: DeviceState,
  capacity: number,
) => Effect.Effect<ProgramSet, never, Gpu | Scope.Scope> = Effect.fnUntraced(function* (state, capacity) {
  const gpu = yield* Gpu;
  const outer = yield* Effect.scope;
  const arena = yield* makeArena;
  const entries = new Map<string, Entry>(); // in the order of their last use
  const compiling = Semaphore.makeUnsafe(1);

  const closeIfDone = (entry: Entry) =>
    Effect.suspend(() =>
      entry.evicted && entry.unread === 0 ? Scope.close(entry.scope, Exit.void) : Effect.void
    );
  const makeRoom = Effect.gen(function* () {
    for (const [key, entry] of entries) {
      if (entries.size < capacity) break;
      entries.delete(key);
      entry.evicted = true;
      yield* closeIfDone(entry);
    }
  });
  /** Runs a program whose staging buffers are kept until its outputs have been read. */
  const runOf = (entry: Entry): Program["run"] => (values) =>
    Effect.suspend(() => {
      if (entry.evicted) return Effect.die(new Error("this program has left its set: get it anew"));
      entry.unread++;
      const done = Effect.suspend(() => {
        entry.unread--;
        return closeIfDone(entry);
      });
      return entry.program.run(values).pipe(
        Effect.onError(() => done),
        Effect.map((reading) => Effect.ensuring(reading, done)),
      );
    });

  const get = Effect.fnUntraced(function* (key: string, graph: () => Graph) {
    let entry = entries.get(key);
    entries.delete(key);
    if (entry === undefined) {
      yield* makeRoom;
      const scope = yield* Scope.fork(outer);
      const program = yield* compile(graph(), state, undefined, arena).pipe(
        Scope.provide(scope),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
      );
      entry = { program, scope, unread: 0, evicted: false };
    }
    entries.set(key, entry);
    return { ...entry.program, run: runOf(entry) };
  });
  return {
    get: (key, graph) => compiling.withPermit(get(key, graph)).pipe(Effect.provideService(Gpu, gpu)),
    keys: () => [...entries.keys()],
  };
});
