/**
 * What benches share: they check an answer, then time, then print a table of rates beside this machine's peaks and
 * leave the same numbers in `runs/bench/`.
 *
 * Deno's own columns are of whole timings, which are many runs each; the table below them is of single runs.
 */
import { basename } from "node:path";
import { Effect, Exit, Layer, ManagedRuntime, Scope } from "effect";
import { layers } from "../ops/runtime/adapters.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { compile } from "../ops/runtime/program.ts";
import { table } from "../pipeline/run/table.ts";
import { layerTuned } from "../pipeline/run/tuned_kernels.ts";
import { measurePeaks, type Peaks } from "./_peak.ts";
import { type Answer, assertSample, sampled } from "./_sample.ts";
import { median, type Runs, runsOf, runsPerTiming } from "./_timing.ts";

/** What one run does: the bench says how much of it that makes a second. */
export type Work =
  | { readonly flops: number }
  /** What has to move between memory and processor if nothing is read or written twice. */
  | { readonly bytes: number }
  | { readonly count: number; readonly of: string };

interface Measured {
  readonly name: string;
  readonly work: Work;
  readonly runs: number; // of a timing
  readonly milliseconds: number[]; // of a run, one number a timing
}

const TIMINGS = 7;

const device = layers[Deno.env.get("SLOTCON_DEVICE") === "dawn" ? "dawn" : "native"];
const runtime = ManagedRuntime.make(Layer.mergeAll(device, layerTuned));
const measured: Measured[] = [];
let machine: { readonly adapter: string; readonly peaks: Peaks } | null = null;
let current: { readonly name: string; readonly scope: Scope.Closeable; readonly runs: Runs } | null = null;

/** A bench of whatever `prepare` makes ready and has found to answer right. */
export const bench = <E>(name: string, work: Work, prepare: Effect.Effect<Runs, E, Gpu | Scope.Scope>) =>
  Deno.bench({
    name,
    warmup: 0, // Deno makes one call all the same, …
    n: TIMINGS - 2, // … and one more than it is told
    fn: async (context) => {
      if (current?.name !== name) await runtime.runPromise(begin(name, work, prepare));
      const { runs, milliseconds } = measured[measured.length - 1];
      context.start();
      const start = performance.now();
      await Effect.runPromise(current!.runs(runs));
      milliseconds.push((performance.now() - start) / runs);
      context.end();
    },
  });

/** A bench of ops on constants. All that they result in is computed; some of it is read and compared. */
export const opBench = (name: string, work: Work, build: () => readonly Answer[]) =>
  bench(
    name,
    work,
    Effect.gen(function* () {
      const answers = build();
      const outputs = Object.fromEntries(answers.map(({ result }, i) => [i, sampled(result)]));
      const program = yield* compile({ label: name, outputs });
      const got = yield* Effect.flatten(program.run({}));
      answers.forEach((answer, i) => assertSample(`${name}, result ${i + 1}`, got[i], answer));
      return runsOf(program);
    }),
  );

const begin = Effect.fnUntraced(function* <E>(
  name: string,
  work: Work,
  prepare: Effect.Effect<Runs, E, Gpu | Scope.Scope>,
) {
  if (current !== null) yield* Scope.close(current.scope, Exit.void);
  current = null;
  machine ??= { adapter: (yield* Gpu).report.description, peaks: yield* measurePeaks };
  const scope = yield* Scope.make();
  const runs = yield* Scope.provide(prepare, scope);
  measured.push({ name, work, runs: yield* runsPerTiming(runs), milliseconds: [] });
  current = { name, scope, runs };
});

/** What was done in a second, in a unit for people, and which share of this machine's peak that is. */
const rateOf = (work: Work, milliseconds: number, peaks: Peaks) => {
  const perSecond = (amount: number) => amount / milliseconds * 1e3;
  if ("flops" in work) {
    const rate = perSecond(work.flops);
    return { rate: rate / 1e9, unit: "GFLOP/s", share: rate / peaks.flops };
  }
  if ("bytes" in work) {
    const rate = perSecond(work.bytes);
    return { rate: rate / 1e9, unit: "GB/s", share: rate / peaks.bytes };
  }
  return { rate: perSecond(work.count), unit: `${work.of}/s`, share: null };
};

const report = () => {
  if (machine === null) return; // a filter left no bench of this file
  const { adapter, peaks } = machine;
  const results = measured.map((each) => {
    const typical = median(each.milliseconds);
    return {
      ...each,
      median: typical,
      least: Math.min(...each.milliseconds),
      ...rateOf(each.work, typical, peaks),
    };
  });
  console.log([
    "",
    `${adapter}: at most ${(peaks.flops / 1e9).toFixed(0)} GFLOP/s, ${(peaks.bytes / 1e9).toFixed(1)} GB/s`,
    table([
      ["one run", "median ms", "least ms", "rate", "of peak", "runs a timing"],
      ...results.map(({ name, runs, median, least, rate, unit, share }) => [
        name,
        median.toPrecision(3),
        least.toPrecision(3),
        `${rate.toPrecision(3)} ${unit}`,
        share === null ? "" : `${(share * 100).toFixed(1)} %`,
        String(runs),
      ]),
    ]),
  ].join("\n"));
  Deno.mkdirSync("runs/bench", { recursive: true });
  const file = `runs/bench/${basename(Deno.mainModule, "_bench.ts")}.json`;
  Deno.writeTextFileSync(file, `${JSON.stringify({ adapter, peaks, results }, null, 2)}\n`);
};

globalThis.addEventListener("unload", report);
