import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Logger } from "effect";
import { gpuTest } from "../../ops/_test_kit.ts";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { photographs, tinyRun } from "../_test_kit.ts";
import type { Config } from "../pretrain/config.ts";
import { pretrain } from "../pretrain/pretrain.ts";
import { Progress, type StepReport } from "./progress.ts";

interface Event {
  readonly ph: string;
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number; // microseconds
  readonly args?: Record<string, unknown>;
}

interface Span {
  readonly name: string;
  readonly begin: number; // microseconds
  readonly end: number;
  readonly within: Span | null;
  readonly args: Record<string, unknown>;
}

/** Ten steps of a tiny network: what they said, what was reported of each, their losses, and their trace if there is one. */
const run = Effect.fnUntraced(function* (change: Partial<Config>) {
  const config = yield* tinyRun({
    ...{ batchSize: 2, epochs: 5, numWorkers: 2, saveSteps: 3 },
    ...change,
  });
  const said: string[] = [];
  const reports: StepReport[] = [];
  const logger = Logger.make(({ message }) => void said.push(String(message)));
  yield* pretrain(config, photographs).pipe(
    Effect.provideService(Progress, {
      begin: () => Effect.void,
      step: (report) => Effect.sync(() => void reports.push(report)),
    }),
    Effect.provide(Logger.layer([logger])),
  );
  const read = (file: string) => Deno.readTextFileSync(join(config.outputDir, file));
  const hasTrace = Array.from(Deno.readDirSync(config.outputDir)).some(({ name }) => name === "trace.json");
  const events: readonly Event[] = hasTrace ? JSON.parse(read("trace.json")).traceEvents : [];
  return { said: said.join("\n"), reports, log: read("log.txt"), events };
});

/** The tracks of a trace by their names. Fails where events break the format: out of order, or ends that end nothing. */
const tracks = (events: readonly Event[]): ReadonlyMap<string, readonly Span[]> => {
  const found = new Map<number, { name: string; spans: Span[]; open: Span[]; last: number }>();
  for (const { ph, name, pid, tid, ts, args = {} } of events) {
    assert.equal(pid, 1);
    if (name === "thread_name") found.set(tid, { name: String(args.name), spans: [], open: [], last: 0 });
    if (ph === "M") continue;
    const track = found.get(tid)!;
    assert.ok(ts >= track.last, `${name} at ${ts} comes after ${track.last}`);
    track.last = ts;
    if (ph === "B") {
      const span = { name, begin: ts, end: NaN, within: track.open.at(-1) ?? null, args };
      track.open.push(span);
      track.spans.push(span);
    } else {
      assert.equal(ph, "E");
      const span = track.open.pop()!;
      assert.equal(name, span.name);
      Object.assign(span, { end: ts });
    }
  }
  for (const { name, open } of found.values()) assert.deepEqual(open, [], name);
  return new Map([...found.values()].map(({ name, spans }) => [name, spans]));
};

gpuTest(
  "pretrain() with --profile leaves a trace whose kernels add up to the stages of its table",
  function* () {
    const timed = (yield* Gpu).report.features.includes("timestamp-query");
    const plain = yield* run({});
    const { said, reports, log, events } = yield* run({ profile: true });
    const losses = (of: readonly StepReport[]) => of.map(({ metrics: { loss } }) => loss);
    assert.deepEqual(losses(reports), losses(plain.reports)); // the run is what it would have been
    assert.deepEqual(plain.events, []);

    const all = tracks(events);
    const [device, thread, saves, ...workers] = [...all.values()];
    assert.deepEqual([...all.keys()].slice(1), [
      "main thread",
      "checkpoints",
      "decoding worker 1",
      "decoding worker 2",
    ]);
    const names = (spans: readonly Span[]) => new Set(spans.map(({ name }) => name));
    for (const name of ["start", "wait for pictures", "submit", "upload", "encode and submit"]) {
      assert.ok(names(thread).has(name), name);
    }
    assert.deepEqual(names(saves), new Set(["save"]));
    for (const worker of workers) assert.deepEqual(names(worker), new Set(["decode", "pack"]));

    if (!timed) return;
    assert.match(said, /^Steps 6 to 8, on average:/m);
    assert.match(log, /all stages/);
    const steps = device.filter(({ name }) => name.startsWith("step "));
    assert.deepEqual(steps.map(({ name }) => name), ["step 6", "step 7", "step 8"]);
    const stageNames = Object.keys(reports[0].seconds.device!);
    const kernels = device.filter(({ args }) => args.op !== undefined);
    for (const [i, step] of steps.entries()) {
      const stages = device.filter(({ within }) => within === step);
      assert.deepEqual([...names(stages)].sort(), [...stageNames].sort());
      const own = kernels.filter(({ within }) => within?.within === step);
      assert.equal(own.length, kernels.length / 3);
      for (const stage of stageNames) {
        const seconds = own.filter(({ within }) => within!.name === stage)
          .reduce((sum, { begin, end }) => sum + (end - begin) / 1e6, 0);
        const told = reports[5 + i].seconds.device![stage];
        assert.ok(Math.abs(seconds - told) < 0.002 * told, `${stage}: ${seconds} s of ${told} s`);
      }
    }
    const [, count] = said.match(/^all stages +(\d+)/m)!;
    assert.equal(Number(count), kernels.length / 3);
    const inTable = stageNames.map((stage) =>
      Number(said.match(new RegExp(`^${stage} +\\d+ +([\\d.]+)`, "m"))![1])
    );
    inTable.forEach((milliseconds, i) => {
      const told = reports.slice(5, 8).reduce((sum, { seconds }) => sum + seconds.device![stageNames[i]], 0) /
        3;
      assert.ok(Math.abs(milliseconds / 1000 - told) < 0.01 * told + 1e-5);
    });
  },
);

gpuTest(
  "pretrain() with --profile says so where the adapter cannot time kernels, and traces the host alone",
  function* () {
    const gpu = yield* Gpu;
    // The same device, as if it had no features.
    const device = new Proxy(gpu.device, {
      get: (target, name) => {
        const value = name === "features" ? new Set() : Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const { said, events } = yield* run({ profile: true, steps: 2 }).pipe(
      Effect.provideService(Gpu, { ...gpu, device }),
    );
    assert.match(said, /cannot time kernels: the profile needs an adapter with timestamp-query/);
    assert.match(said, /^Steps 1 to 2, on average:/m); // a run that is shorter than the warm-up
    const [, thread] = [...tracks(events).values()];
    assert.ok(thread.some(({ name }) => name === "upload"));
  },
);
