/**
 * How long a fresh process takes to its first step: `deno task bench:start [ARCH...]`. Each starts once with an empty
 * shader cache and then with the one that was left behind. The networks are those of the published runs, the pictures few
 * and small, so that starting is what takes the time. Started as a child, this script starts a run and says when it did
 * what.
 */
import { Effect } from "effect";
import { drawScene } from "../data/datasets/draw_scene.ts";
import { randomStream } from "../data/random/random.ts";
import { native } from "../ops/runtime/adapters.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { compile } from "../ops/runtime/program.ts";
import { configure } from "../pipeline/pretrain/config.ts";
import { drawTwoCrops } from "../pipeline/pretrain/draws.ts";
import { packBatch } from "../pipeline/pretrain/pack.ts";
import { stepGraph } from "../pipeline/pretrain/step_graph.ts";
import { initialState } from "../pipeline/run/initial_state.ts";
import { upload } from "../pipeline/run/state.ts";
import { table } from "../pipeline/run/table.ts";

const BATCH = 2, SIZE = 64;
const WARM_STARTS = 3; // the fastest of them counts
const CHILD = "as-child"; // says that this process is one of those that are timed

/** What was done, and for how many milliseconds. */
type Times = Readonly<Record<string, number>>;

/** Milliseconds since 1970. */
const now = () => performance.timeOrigin + performance.now();

const FIRST = "first step", SECOND = "second step";

/** Starts a run as `slotcon pretrain` does and makes two steps. */
const start = Effect.fnUntraced(function* (arch: string, started: number) {
  const times: Record<string, number> = {};
  let last = started;
  const done = (what: string) => {
    const time = now();
    times[what] = time - last;
    last = time;
  };
  done("Deno, modules, device");
  const preset = yield* configure("coco-800", new Map([["arch", { value: arch, where: "ARCH" }]]));
  const config = { ...preset, batchSize: BATCH, imageSize: SIZE };
  const { traits, report } = yield* Gpu;
  const { packing, state, graph } = stepGraph(config, traits);
  done("graph");
  const buffers = yield* upload(state, initialState(state, config.seed));
  done("initial values");
  const program = yield* compile(graph, buffers);
  done("lowering, pipelines");
  const samples = Array.from({ length: BATCH }, (_, i) => {
    const picture = { width: 128, height: 128, rgb: drawScene(randomStream(1, i), 128).rgb };
    return { picture, draw: drawTwoCrops(randomStream(2, i), picture, config) };
  });
  const batch = packBatch(samples, packing);
  done("batch");
  for (const step of [FIRST, SECOND]) {
    const rates = { learningRate: Float32Array.of(0.01), teacherMomentum: Float32Array.of(0.99) };
    yield* Effect.flatten(program.run({ ...batch, ...rates }));
    done(step);
  }
  return { adapter: report.description, times };
}, Effect.scoped);

interface Started {
  readonly adapter: string;
  readonly times: Times;
}

/** Starts a process whose driver keeps its compiled shaders in `cache`. */
const startProcess = async (arch: string, cache: string): Promise<Started> => {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "-A", import.meta.filename!, arch, CHILD, String(now())],
    env: { MESA_SHADER_CACHE_DIR: cache, __GL_SHADER_DISK_CACHE_PATH: cache },
    stderr: "inherit",
  });
  const { code, stdout } = await command.output();
  if (code !== 0) Deno.exit(code);
  return JSON.parse(new TextDecoder().decode(stdout));
};

/** Until the first step is done. */
const total = ({ times }: Started) =>
  Object.entries(times).reduce((sum, [what, time]) => what === SECOND ? sum : sum + time, 0);

const [arch, role, started] = Deno.args;
if (role === CHILD) {
  const result = await start(arch, Number(started)).pipe(Effect.provide(native), Effect.runPromise);
  console.log(JSON.stringify(result));
} else {
  const archs = Deno.args.length > 0 ? Deno.args : ["resnet18", "resnet50"];
  const starts: { readonly arch: string; readonly cache: string; readonly process: Started }[] = [];
  for (const arch of archs) {
    const cache = Deno.makeTempDirSync();
    starts.push({ arch, cache: "empty", process: await startProcess(arch, cache) });
    const warm: Started[] = [];
    for (let i = 0; i < WARM_STARTS; i++) warm.push(await startProcess(arch, cache));
    starts.push({ arch, cache: "filled", process: warm.sort((a, b) => total(a) - total(b))[0] });
    Deno.removeSync(cache, { recursive: true });
  }
  const seconds = (milliseconds: number) => (milliseconds / 1000).toFixed(2);
  const row = (what: string, time: (process: Started) => number) => [
    what,
    ...starts.map(({ process }) => seconds(time(process))),
  ];
  const whats = Object.keys(starts[0].process.times).filter((what) => what !== SECOND);
  console.log(`${starts[0].process.adapter}: seconds of a fresh process, ${BATCH}×${SIZE}²`);
  console.log(table([
    ["", ...starts.map(({ arch }) => arch)],
    ["shader cache", ...starts.map(({ cache }) => cache)],
    ...whats.map((what) => row(what, ({ times }) => times[what])),
    row("until the first step is done", total),
    row("a step later on", ({ times }) => times[SECOND]),
  ]));
  Deno.mkdirSync("runs/bench", { recursive: true });
  Deno.writeTextFileSync("runs/bench/first_step.json", `${JSON.stringify(starts, null, 2)}\n`);
}
