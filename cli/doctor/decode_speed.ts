/** Measures how fast this machine turns image files into batches. */
import { join } from "node:path";
import { Effect, Stream } from "effect";
import sharp from "sharp";
import type { RunConfig } from "../../pipeline/run/options.ts";
import type { CliTask } from "../flags/tasks.ts";

/** Small batches, so that a measurement takes about a second. */
const BATCH = 8;
/** Batches of each worker before and during the measurement; the first ones wait for the workers to start. */
const BEFORE = 1, TIMED = 4;

/**
 * How many images the workers of `config` decode and crop in a second: JPEG files of 640 × 480 pixels with about as many
 * bytes as photographs. `maxBinding` is the adapter's limit in bytes; `folder` is where the image is written meanwhile.
 */
export const decodeSpeed = Effect.fn("decodeSpeed")(
  function* <C extends RunConfig, Preset extends string>(
    { batches }: CliTask<C, Preset>,
    config: C,
    maxBinding: number,
    folder: string,
  ) {
    const scratch = yield* Effect.acquireRelease(
      attempt(() => Deno.makeTempDir({ dir: folder })),
      (path) => Effect.promise(() => Deno.remove(path, { recursive: true })),
    );
    const file = join(scratch, "picture.jpg");
    yield* attempt(() => photograph().toFile(file));

    const workers = config.numWorkers;
    const files = Array<string>(BATCH * workers * (BEFORE + TIMED)).fill(file);
    const settings = { ...config, batchSize: BATCH, seed: 0, maxBadImages: 0 };
    const times = yield* batches(files, settings, maxBinding).pipe(
      Stream.take(workers * (BEFORE + TIMED)),
      Stream.map(() => performance.now()),
      Stream.runCollect,
    );
    const milliseconds = times[times.length - 1] - times[workers * BEFORE - 1];
    return BATCH * TIMED * workers / (milliseconds / 1000);
  },
  Effect.scoped,
);

/** Smooth noise, which takes about 160 KB as JPEG, as a photograph does. */
const photograph = () => {
  const noise = { type: "gaussian", mean: 128, sigma: 60 } as const;
  const picture = sharp({ create: { width: 240, height: 180, channels: 3, background: "gray", noise } });
  return picture.resize(640, 480).jpeg({ quality: 90 });
};

const attempt = <A>(work: () => Promise<A>) =>
  Effect.tryPromise({ try: work, catch: (error) => error as Error });
