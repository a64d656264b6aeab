/**
 * How much the resident memory of long processes grows with the steps of a run: a tiny network on either WebGPU, as
 * users start it, once with its own page (`--watch`) and once with another process that shows it (`slotcon watch`).
 * The pages are asked as a browser asks them, but ten times a second.
 *
 *     deno task bench:growth                 # 5000 steps of each
 *     deno task bench:growth 1500 dawn       # so many, on this WebGPU alone
 */
import { join } from "node:path";
import { sleep, type Started, startUntil, tinyRun, until } from "../cli/_test_kit.ts";
import { writeNoise } from "../data/_test_kit.ts";
import { exists } from "../data/files/exists.ts";
import { table } from "../pipeline/run/table.ts";

/** Steps before memory counts: caches fill, and code is compiled. */
const SETTLED = 500;
/** Steps of a window. What is above the lowest amount in it comes and goes, as batches that wait for the device do. */
const WINDOW = 250;
/** Milliseconds between two looks at the memory, and between two questions of a page. */
const LOOK = 250, ASK = 100;

/** What a process prints of its page. */
const PAGE = / on (http:\/\/127\S+)/;

/** The resident memory of a process after so many steps of the run. */
interface Sample {
  readonly step: number;
  readonly mebibytes: number;
}

const resident = async ({ pid }: Started): Promise<number> => {
  const { stdout } = await new Deno.Command("ps", { args: ["-o", "rss=", "-p", `${pid}`] }).output();
  return Number(new TextDecoder().decode(stdout)) / 1024;
};

/** Asks a page for everything that it has, again and again, until `isOver`; a busy one may give no answer. */
const lookAt = async (page: string, isOver: () => boolean) => {
  const ask = (question: string) => fetch(new URL(question, page)).then((answer) => answer.json());
  for (; !isOver(); await sleep(ASK)) {
    const runs: readonly { readonly id: string }[] = await ask("runs").catch(() => []);
    for (const { id } of runs) {
      const questions = [`series?run=${id}&points=1200&smoothing=10`, `times?run=${id}&points=300`];
      await Promise.allSettled(questions.map(ask));
    }
  }
};

/** The last step in a run's metrics. */
const lastStep = async (file: string): Promise<number> => {
  using opened = await Deno.open(file);
  const { size } = await opened.stat();
  await opened.seek(Math.max(0, size - 4096), Deno.SeekMode.Start);
  const end = await new Response(opened.readable).text();
  return Number([...end.matchAll(/"step":(\d+)/g)].at(-1)?.[1] ?? 0);
};

/** A run of so many steps, and who shows it: the memory of each process as it goes on. */
const measured = async (backend: string, steps: number, isOwnPage: boolean) => {
  const folder = await Deno.makeTempDir();
  const [pictures, output] = [join(folder, "pictures"), join(folder, "run")];
  const metrics = join(output, "metrics.jsonl");
  const started: Started[] = [];
  const start = async (args: readonly string[], wanted: RegExp) => {
    const process = await startUntil(args, wanted);
    started.push(process);
    return process;
  };
  try {
    await writeNoise(pictures);
    const run = await start([
      ...tinyRun(pictures, output),
      ..."--optimizer sgd --base-lr 0.01 --save-freq 100000 --save-steps 500 --keep 2".split(" "),
      ...["--device", backend, "--epochs", `${steps}`, "--steps", `${steps}`],
      ...isOwnPage ? ["--watch"] : [],
    ], isOwnPage ? PAGE : /^/);
    let isOver = false;
    const ended = run.ended.finally(() => isOver = true);
    await until("the run begins", () => isOver || exists(metrics), 600);
    const watch = isOwnPage ? null : await start(["watch", folder], PAGE);
    const looking = lookAt((watch ?? run).found[1], () => isOver);
    const samples: Readonly<Record<"run" | "watch", Sample[]>> = { run: [], watch: [] };
    for (; !isOver; await sleep(LOOK)) {
      const step = await lastStep(metrics);
      if (step < SETTLED || step >= steps - 1) continue; // it ends, and gives memory back
      samples.run.push({ step, mebibytes: await resident(run) });
      if (watch !== null) samples.watch.push({ step, mebibytes: await resident(watch) });
    }
    await looking;
    if (!(await ended).success) throw new Error(await Deno.readTextFile(join(output, "log.txt")));
    return samples;
  } finally {
    await Promise.all(started.map(({ stop }) => stop()));
    await Deno.remove(folder, { recursive: true });
  }
};

/** The lowest amounts in windows of steps. */
const floors = (samples: readonly Sample[]): readonly Sample[] =>
  [...Map.groupBy(samples, ({ step }) => Math.floor(step / WINDOW)).values()].map((window) =>
    window.reduce((lowest, sample) => sample.mebibytes < lowest.mebibytes ? sample : lowest)
  );

/** The slopes from each sample to each later one, MiB in 1000 steps, ascending. */
const slopes = (samples: readonly Sample[]): readonly number[] =>
  samples.flatMap((a, i) =>
    samples.slice(i + 1).map((b) => (b.mebibytes - a.mebibytes) / (b.step - a.step) * 1000)
  ).sort((a, b) => a - b);

const row = (name: string, samples: readonly Sample[]) => {
  const alive = samples.filter(({ mebibytes }) => mebibytes > 0); // the last look may be at a process that has ended
  const [lowest, sorted] = [floors(alive), slopes(floors(alive))];
  const quarter = (of: number) => (sorted[Math.floor(of / 4 * (sorted.length - 1))] ?? NaN).toFixed(2);
  const most = Math.max(...alive.map(({ mebibytes }) => mebibytes));
  return [
    name,
    quarter(2),
    `${quarter(1)} to ${quarter(3)}`,
    ...[lowest[0].mebibytes, lowest.at(-1)!.mebibytes, most].map((amount) => amount.toFixed(0)),
  ];
};

const [steps = "5000", ...chosen] = Deno.args;
const rows = [["MiB", "in 1000 steps", "half of all slopes", "at first", "at the end", "at most"]];
for (const backend of chosen.length > 0 ? chosen : ["native", "dawn"]) {
  const apart = await measured(backend, Number(steps), false);
  rows.push(row(`a run (${backend})`, apart.run), row("slotcon watch beside it", apart.watch));
  console.log(table(rows)); // a run may take a quarter of an hour
  rows.push(row(`a run with --watch (${backend})`, (await measured(backend, Number(steps), true)).run));
}
console.log(table(rows));
console.log(
  `${steps} steps, the first ${SETTLED} left out; the lowest resident memory in each ${WINDOW} steps, and the median of ` +
    `the slopes between any two of them`,
);
