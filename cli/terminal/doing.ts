/** Has the voice say what a command does, and how far its device is. */
import { Effect, Layer } from "effect";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { voice } from "./voice.ts";

/** What the command does from now on, in words. */
export const doingNow = (words: string): Effect.Effect<void> => Effect.sync(() => voice.doing(words));

/** A device of which the voice tells how many kernels have been compiled. */
export const heardGpu = <E, R>(layer: Layer.Layer<Gpu, E, R>): Layer.Layer<Gpu, E, R> =>
  Layer.effect(
    Gpu,
    Effect.map(Gpu, (gpu) => {
      let compiled = 0;
      const pipeline: typeof gpu.pipeline = (label, code) =>
        Effect.tap(
          gpu.pipeline(label, code),
          () => Effect.sync(() => voice.soFar(`${++compiled} kernels compiled`)),
        );
      return { ...gpu, pipeline };
    }),
  ).pipe(Layer.provide(layer));
