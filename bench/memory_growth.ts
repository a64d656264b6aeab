/**
 * How much the resident memory of a run grows with its steps: a tiny network, watched or not, on either WebGPU. Each
 * run is a process of its own, with the launcher's settings.
 *
 *     deno task bench:growth            # 5000 steps of each
 *     deno task bench:growth 1500 dawn  # so many, on this WebGPU alone
 */
import "../pipeline/run/without_async_context.ts"; // before Effect
import { join } from "node:path";
import { Effect, Logger } from "effect";
import { testFolder, writeNoise } from "../data/_test_kit.ts";
import type { Backend } from "../ops/graph/lowering.ts";
import { layers } from "../ops/runtime/adapters.ts";
import { serveInWorker } from "../cli/watch/serve_in_worker.ts";
import { configure } from "../pipeline/pretrain/config.ts";
import { pretrain } from "../pipeline/pretrain/pretrain.ts";
import { Progress, type StepReport } from "../pipeline/run/progress.ts";
import { table } from "../pipeline/run/table.ts";

/** Steps before memory is looked at: caches fill, and code is compiled. */
const SETTLED = 500;
/** Steps between two looks. */
const EVERY = 25;

interface Sample {
  readonly step: number;
  /** Bytes. */
  readonly resident: number;
  readonly heap: number;
  readonly external: number;
}

/** What grows by how much: MiB in a thousand steps, by least squares. */
const slope = (samples: readonly Sample[], of: "resident" | "heap" | "external"): number => {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const step = mean(samples.map((sample) => sample.step)), bytes = mean(samples.map((sample) => sample[of]));
  const covariance = mean(samples.map((sample) => (sample.step - step) * (sample[of] - bytes)));
  return covariance / mean(samples.map((sample) => (sample.step - step) ** 2)) * 1000 / 2 ** 20;
};

const run = Effect.fnUntraced(function* (backend: Backend, steps: number, watched: boolean) {
  const folder = yield* testFolder;
  const images = yield* Effect.promise(() => writeNoise(join(folder, "pictures")));
  const config = {
    ...yield* configure(null),
    ...{ arch: "resnet18", width: 2, outputStride: 8, dimHidden: 8, dimOut: 8, numPrototypes: 4 } as const,
    ...{
      imageSize: 32,
      batchSize: 2,
      epochs: steps,
      warmupEpoch: 0,
      optimizer: "sgd",
      baseLr: 0.01,
    } as const,
    ...{ steps, numWorkers: 1, saveFreq: 1000, saveSteps: 500, outputDir: join(folder, "run") },
  };
  const samples: Sample[] = [];
  const step = ({ step }: StepReport) =>
    Effect.sync(() => {
      if (step % EVERY > 0 || step < SETTLED) return;
      (globalThis as { gc?: () => void }).gc?.(); // what is left is held
      const { rss: resident, heapUsed: heap, external } = Deno.memoryUsage();
      samples.push({ step, resident, heap, external });
    });
  if (watched) {
    const page = yield* serveInWorker(config.outputDir);
    yield* Effect.forkScoped(Effect.forever(
      Effect.promise(() => fetch(new URL("runs", page)).then((answer) => answer.text())).pipe(
        Effect.ignore,
        Effect.andThen(Effect.sleep("1 second")),
      ),
    ));
  }
  yield* pretrain(config, images).pipe(
    Effect.provideService(Progress, { begin: () => Effect.void, step }),
    Effect.provide([layers[backend], Logger.layer([])]),
  );
  return samples;
}, Effect.scoped);

const [first, ...rest] = Deno.args;
if (first === "process") {
  const [backend, steps, watched] = rest;
  console.log(
    JSON.stringify(await Effect.runPromise(run(backend as Backend, Number(steps), watched === "true"))),
  );
} else {
  const steps = Number(first ?? 5000);
  const backends: readonly string[] = rest.length > 0 ? rest : ["native", "dawn"];
  const rows = [["MiB in 1000 steps", "resident", "JavaScript heap", "outside of it", "resident at the end"]];
  for (const backend of backends) {
    for (const watched of [false, true]) {
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "-A",
          "--v8-flags=--max-semi-space-size=1,--expose-gc",
          import.meta.filename!,
          "process",
        ]
          .concat(backend, `${steps}`, `${watched}`),
        env: { MALLOC_ARENA_MAX: "2" },
        stderr: "inherit",
      }).output();
      const samples: Sample[] = JSON.parse(new TextDecoder().decode(stdout).trim().split("\n").at(-1)!);
      rows.push([
        `${backend}${watched ? ", watched" : ""}`,
        ...(["resident", "heap", "external"] as const).map((of) => slope(samples, of).toFixed(2)),
        `${(samples.at(-1)!.resident / 2 ** 20).toFixed(0)} MiB`,
      ]);
    }
  }
  console.log(table(rows));
}
