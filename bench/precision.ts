/**
 * Half precision beside single: `deno task bench:precision [STEPS]`, 300 if not given.
 *
 * Pretrains the demo's network on drawn scenes from the same seed: in f32, in f16, and in f32 on pictures that are brighter
 * by half a last bit of f16, which says how far two runs drift apart whatever makes them differ. Prints how far their losses
 * (means over 20 steps) come apart and how fast they are; `runs/bench/precision.png` shows the losses, every number is in
 * `runs/bench/precision.json`. Takes some eight minutes on two CPU cores.
 */
import { join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import { lineChart } from "../cli/pages/line_chart.ts";
import { layerReport } from "../cli/terminal/terminal_progress.ts";
import { listImages } from "../data/datasets/image_list.ts";
import { makeScenes } from "../data/datasets/scenes.ts";
import { mul } from "../ops/arithmetic.ts";
import { layers } from "../ops/runtime/adapters.ts";
import { type Config, configure } from "../pipeline/pretrain/config.ts";
import { pretrain } from "../pipeline/pretrain/pretrain.ts";
import { slotConStep } from "../pipeline/pretrain/step.ts";
import type { StepBuilder } from "../pipeline/pretrain/step_graph.ts";
import { table } from "../pipeline/run/table.ts";

const FOLDER = "runs/bench";
const SCENES = { train: 800, val: 150, size: 128 };
const SMOOTH = 20; // steps

const brighter: StepBuilder = ({ images, ...views }, rates, config) =>
  slotConStep({ ...views, images: mul(1 + 2 ** -11, images) }, rates, config);

const RUNS: readonly {
  readonly name: string;
  readonly precision: "f32" | "f16";
  readonly build?: StepBuilder;
}[] = [
  { name: "f32", precision: "f32" },
  { name: "f16", precision: "f16" },
  { name: "f32, brighter by 1/2048", precision: "f32", build: brighter },
];

interface Line {
  readonly loss: number;
  readonly images_per_second: number;
  readonly loss_scale?: number;
  readonly skipped_steps?: number;
}

const run = Effect.fnUntraced(
  function* ({ name, precision, build }: (typeof RUNS)[number], steps: number) {
    const dataDir = join(FOLDER, "precision_data");
    const outputDir = join(FOLDER, `precision_${RUNS.findIndex((run) => run.name === name)}`);
    const demo = yield* configure("demo");
    const config: Config = { ...demo, dataDir, outputDir, precision, steps, saveFreq: 1000 };
    yield* makeScenes({ dir: dataDir, seed: config.seed, ...SCENES });
    console.log(`\n${name}`);
    yield* pretrain(config, yield* listImages(config), build).pipe(Effect.provide(layerReport()));
    const [metrics, plan] = ["metrics.jsonl", "plan.json"].map((file) =>
      Deno.readTextFileSync(join(outputDir, file))
    );
    return {
      name,
      lines: metrics.trim().split("\n").map((line) => JSON.parse(line) as Line),
      memory: JSON.parse(plan).memory as Readonly<Record<string, number>>,
    };
  },
  Effect.provide(layers.native),
);

const smoothed = (lines: readonly Line[]): number[] =>
  lines.slice(SMOOTH - 1).map((_, i) =>
    lines.slice(i, i + SMOOTH).reduce((sum, { loss }) => sum + loss, 0) / SMOOTH
  );

const steps = Number(Deno.args[0] ?? 300);
const results: Effect.Success<ReturnType<typeof run>>[] = [];
for (const each of RUNS) results.push(await Effect.runPromise(run(each, steps)));

const [single] = results;
const rows = results.map(({ name, lines, memory }) => {
  const apart = smoothed(lines).map((loss, i) => Math.abs(loss - smoothed(single.lines)[i]));
  const last = lines.at(-1)!;
  return [
    name,
    smoothed(lines).at(-1)!.toFixed(3),
    Math.max(...apart).toFixed(3),
    (apart.reduce((sum, value) => sum + value, 0) / apart.length).toFixed(3),
    last.images_per_second.toPrecision(3),
    `${(memory.activations / 2 ** 20).toFixed(1)} MiB`,
    last.loss_scale === undefined ? "" : `${last.loss_scale}, ${last.skipped_steps} skipped`,
  ];
});
const title = ["", "loss", "apart, at most", "on average", "images/s", "activations", "loss scale"];
console.log(`\nLosses of ${steps} steps, means over ${SMOOTH}:\n\n${table([title, ...rows])}`);

Deno.writeTextFileSync(join(FOLDER, "precision.json"), `${JSON.stringify({ scenes: SCENES, results })}\n`);
const curves = results.map(({ name, lines }) => ({ name, values: lines.map(({ loss }) => loss) }));
const [svg] = lineChart("Loss", curves).text.match(/<svg.*<\/svg>/s)!;
const colors = [...svg.matchAll(/stroke="(#\w+)"/g)].map(([, color]) => color);
const legend = curves.map(({ name }, i) =>
  `<text x="180" y="${24 + 16 * i}" fill="${colors[i]}">${name}</text>`
);
const drawing = svg.replace("<svg", `<svg xmlns="http://www.w3.org/2000/svg"`)
  .replace(">", `><style>.grid { stroke: #ddd }</style><rect width="100%" height="100%" fill="white"/>`)
  .replace("</svg>", `${legend.join("")}</svg>`);
await sharp(new TextEncoder().encode(drawing), { density: 144 }).png({ palette: true })
  .toFile(join(FOLDER, "precision.png"));
