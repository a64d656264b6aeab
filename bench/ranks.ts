/**
 * What sharing a step among ranks costs: `deno task bench:ranks [PRESET]`. The same step, once by one process and once by
 * two that share its batch, this machine's cores and its adapter: with them on one machine no gain can be seen, but all of
 * the overhead. Started as a rank, this script times its part.
 */
import { Effect } from "effect";
import { drawScene } from "../data/datasets/draw_scene.ts";
import { randomStream } from "../data/random/random.ts";
import { Collective } from "../ops/runtime/collective.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { compile } from "../ops/runtime/program.ts";
import { type Config, configure, type PresetName, presetNames } from "../pipeline/pretrain/config.ts";
import { drawTwoCrops } from "../pipeline/pretrain/draws.ts";
import { packBatch } from "../pipeline/pretrain/pack.ts";
import { stepGraph } from "../pipeline/pretrain/step_graph.ts";
import { rankGpu } from "../pipeline/ranks/device.ts";
import { launcherSettings } from "../pipeline/ranks/launch.ts";
import { ranks } from "../pipeline/ranks/mpi.ts";
import { acrossRanks } from "../pipeline/ranks/sync.ts";
import { initialState } from "../pipeline/run/initial_state.ts";
import { upload } from "../pipeline/run/state.ts";
import { table } from "../pipeline/run/table.ts";
import { median, timed } from "./_timing.ts";

const STEPS = 7;
const WORLDS = [1, 2];
const RANK = "as-rank"; // says that this process is one of those that are timed

interface Timed {
  readonly rank: number;
  readonly world: number;
  readonly stops: number;
  readonly exchanges: number;
  readonly megabytes: number; // that a rank gives to the others in a step
  readonly step: number; // milliseconds, median
  readonly device: number; // of it at stops, waiting for the device and bringing data over
  readonly exchange: number; // and waiting for the other ranks
}

const timeRank = Effect.fnUntraced(function* (config: Config) {
  const { rank, world } = yield* Collective;
  const { traits } = yield* Gpu;
  const own = { ...config, batchSize: config.batchSize / world };
  const { packing, state, graph } = stepGraph(own, traits, undefined, acrossRanks(rank, world));
  const program = yield* compile(graph, yield* upload(state, initialState(state, 0)));
  const samples = Array.from({ length: own.batchSize }, (_, i) => {
    const picture = { width: 128, height: 128, rgb: drawScene(randomStream(1, rank, i), 128).rgb };
    return { picture, draw: drawTwoCrops(randomStream(2, rank, i), picture, config) };
  });
  const uploads = {
    ...packBatch(samples, packing),
    learningRate: Float32Array.of(0.01),
    teacherMomentum: Float32Array.of(0.99),
  };
  const step = Effect.asVoid(Effect.flatten(program.run(uploads)));
  yield* step; // drivers compile in the first one
  const before = { ...program.spent };
  const times: number[] = [];
  for (let i = 0; i < STEPS; i++) times.push(yield* timed(step));
  return {
    rank,
    world,
    stops: program.syncPoints,
    exchanges: program.exchanges,
    megabytes: program.exchangedBytes / 1e6,
    step: median(times),
    device: (program.spent.device - before.device) / STEPS,
    exchange: (program.spent.exchange - before.exchange) / STEPS,
  } satisfies Timed as Timed;
}, Effect.scoped);

const start = async (world: number, preset: PresetName): Promise<Timed> => {
  const command = new Deno.Command("mpirun", {
    args: ["-n", String(world), Deno.execPath(), "run", "--quiet", "-A", import.meta.filename!, preset, RANK],
    env: launcherSettings,
    stderr: "inherit",
  });
  const { code, stdout } = await command.output();
  if (code !== 0) Deno.exit(code);
  return JSON.parse(new TextDecoder().decode(stdout));
};

const preset = presetNames.find((name) => name === (Deno.args[0] ?? "demo"));
if (preset === undefined) throw new Error(`expected one of ${presetNames.join(", ")}, found ${Deno.args[0]}`);
if (Deno.args[1] === RANK) {
  const config = { ...Effect.runSync(configure(preset)), allowSharedDevice: true };
  const timed = await timeRank(config).pipe(
    Effect.provide(rankGpu(config)),
    Effect.provide(ranks(config)),
    Effect.runPromise,
  );
  if (timed.rank === 0) console.log(JSON.stringify(timed));
} else {
  const results: Timed[] = [];
  for (const world of WORLDS) results.push(await start(world, preset));
  const [alone] = results;
  const share = (part: number, whole: number) => `${(100 * part / whole).toFixed(0)} %`;
  console.log(table([
    ["ranks", "step", "beside one", "stops", "tensors", "MB", "at stops: device", "other ranks"],
    ...results.map(({ world, step, stops, exchanges, megabytes, device, exchange }) => [
      String(world),
      `${step.toFixed(0)} ms`,
      `× ${(step / alone.step).toFixed(2)}`,
      String(stops),
      String(exchanges),
      megabytes.toFixed(1),
      share(device, step),
      share(exchange, step),
    ]),
  ]));
}
