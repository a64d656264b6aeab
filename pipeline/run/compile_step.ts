/** Compiles the step of a run, and says how far that is. */
import { Effect, type Scope } from "effect";
import type { Graph } from "../../ops/compiler/graph.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { Gpu, type GpuError } from "../../ops/runtime/gpu.ts";
import { compile, type DeviceState, type Program } from "../../ops/runtime/program.ts";
import { preparing } from "./progress.ts";

/** The program of a step over its state; the progress sink hears of the kernels. Fails as `compile` does. */
export const compileStep: (
  graph: Graph,
  state: DeviceState,
) => Effect.Effect<Program, GpuError | PlanError, Gpu | Scope.Scope> = Effect.fnUntraced(
  function* (graph, state) {
    const gpu = yield* Gpu;
    let compiled = 0;
    const tell = Effect.suspend(() =>
      preparing(`Compiling for ${gpu.report.description}: ${compiled} kernels so far`)
    );
    yield* tell;
    const counted = (label: string, code: string) =>
      Effect.tap(gpu.pipeline(label, code), () => {
        compiled++;
        return tell;
      });
    return yield* compile(graph, state).pipe(Effect.provideService(Gpu, { ...gpu, pipeline: counted }));
  },
);
