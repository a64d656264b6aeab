/**
 * The same work in this project and in its peers, in turns: `deno task bench:peers`, or `deno task bench:peers conv` for
 * the cases with this in their names ("segmentation", "segmentation step, voc"), or `deno task bench:peers conv 3` for 3
 * rounds of timings instead of 7. Peers are fetched when they are first asked for, into Deno's cache; nothing else knows
 * of them. One that does not run here is left out. Every case has processes of its own, so that each says what memory the
 * case takes; every number is in `runs/bench/peers.json`.
 */
import { writtenBytes } from "../../pipeline/run/bytes.ts";
import { table } from "../../pipeline/run/table.ts";
import { median } from "../_timing.ts";
import { type Case, CASES, CLASSES, MOMENTUM, RATE } from "./cases.ts";
import { linesOf, type Reply, type Request, type Taken } from "./contender.ts";

const TIMING_MILLISECONDS = 300;
const FOLDER = "runs/bench";

const here = import.meta.dirname!;
const deno = ["deno", "run", "--no-prompt", "--quiet", "--allow-env", "--allow-sys", "--allow-read=."];
const ours = [...deno, "--allow-ffi=node_modules", `${here}/ours.ts`];
const apart = ["--no-config", "--no-lock"]; // a peer is none of the project's libraries

const TFJS = "4.22.0";
const JAX_JS = "0.1.25";

const PYTORCH = "PyTorch CPU";

/** The commands that start the contenders, ours first. */
const contenders: Readonly<Record<string, () => readonly string[]>> = {
  "ours": () => [...ours, "native"],
  "ours on Dawn": () => [...ours, "dawn"],
  "tfjs-webgpu": () => [...deno, ...apart, `${here}/tfjs.ts`, bundledTfjs()],
  "jax-js": () => [...deno, ...apart, `${here}/jax_js.ts`, `npm:@jax-js/jax@${JAX_JS}`],
  [PYTORCH]: () => {
    const work = { cases: CASES, classes: CLASSES, rate: RATE, momentum: MOMENTUM };
    return [pythonWithTorch(), `${here}/torch_cpu.py`, JSON.stringify(work)];
  },
};

const isOurs = (name: string) => name.startsWith("ours");

/** Whether a contender knows this work: whole steps of this project have been written for PyTorch alone. */
const takesPart = (name: string, { kind }: Case) =>
  isOurs(name) || name === PYTORCH || !(kind === "SlotCon step" || kind === "segmentation step");

/** PyTorch is not fetched, but used where it is; as a package of the system only the system's Python has it. */
const pythonWithTorch = (): string => {
  const found = ["python3", "/usr/bin/python3"].find((python) => {
    try {
      return new Deno.Command(python, { args: ["-c", "import torch"], stderr: "null" }).outputSync().success;
    } catch {
      return false; // there is no such Python
    }
  });
  if (found === undefined) throw new Error("no Python here has the package torch");
  return found;
};

/** TensorFlow.js with its gradients, which only a bundler finds: they import each other without file extensions. */
const bundledTfjs = (): string => {
  const entry = `${FOLDER}/tfjs_entry.js`, bundle = `${FOLDER}/tfjs.js`;
  Deno.writeTextFileSync(
    entry,
    `import "npm:@tensorflow/tfjs-core@${TFJS}/dist/register_all_gradients.js";
import "npm:@tensorflow/tfjs-backend-webgpu@${TFJS}";
export * from "npm:@tensorflow/tfjs-core@${TFJS}";
`,
  );
  const args = [
    "bundle",
    ...apart,
    "--node-modules-dir=none",
    "--quiet",
    "--platform",
    "browser",
    "-o",
    bundle,
    entry,
  ];
  const { success } = new Deno.Command("deno", { args, stderr: "inherit" }).outputSync();
  if (!success) throw new Error("it could not be bundled");
  return Deno.realPathSync(bundle);
};

interface Contender {
  readonly ask: (request: Request) => Promise<Reply>;
  /** Ends the process. */
  readonly end: () => Promise<void>;
}
type Ask = Contender["ask"];

/** Starts a contender and waits until it is ready. */
const started = async ([command, ...args]: readonly string[]): Promise<Contender> => {
  const child = new Deno.Command(command, { args, stdin: "piped", stdout: "piped", stderr: "null" }).spawn();
  const input = child.stdin.getWriter();
  const lines = linesOf(child.stdout);
  const reply = async (): Promise<Reply> => {
    while (true) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`"${[command, ...args.slice(0, -1)].join(" ")}" has ended`);
      if (value.startsWith("{")) return JSON.parse(value); // libraries print greetings as well
    }
  };
  await reply();
  return {
    ask: async (request) => {
      await input.write(new TextEncoder().encode(`${JSON.stringify(request)}\n`));
      return await reply();
    },
    end: async () => {
      child.kill();
      await child.status;
    },
  };
};

/** What goes wrong with a contender ends its part in the case, not the bench. */
const trying = async <A>(name: string, action: () => Promise<A>): Promise<A | null> => {
  try {
    return await action();
  } catch (error) {
    console.log(`${name} takes no part: ${error instanceof Error ? error.message : error}`);
    return null;
  }
};

/** What so many runs take, in milliseconds a run. */
const timed = async (ask: Ask, runs: number): Promise<Taken> => {
  const reply = await ask({ run: runs });
  if (!("milliseconds" in reply)) throw new Error("error" in reply ? reply.error : "no time");
  return { ...reply, milliseconds: reply.milliseconds / runs };
};

/** How many runs make a timing long enough for the wait at its end, some 11 ms, to be lost in it. */
const runsPerTiming = async (ask: Ask): Promise<number> => {
  for (let count = 1;; count *= 4) {
    const milliseconds = count * (await timed(ask, count)).milliseconds;
    if (milliseconds > TIMING_MILLISECONDS / 2) {
      return Math.max(1, Math.round(count * TIMING_MILLISECONDS / milliseconds));
    }
  }
};

const sampleOf = async (ask: Ask, place: number): Promise<readonly number[]> => {
  const reply = await ask({ prepare: place });
  if (!("sample" in reply)) throw new Error("error" in reply ? reply.error : "no answer");
  return reply.sample;
};

/** How far two answers are apart, relative to their size. */
const distance = (a: readonly number[], b: readonly number[]): number => {
  const norm = (values: readonly number[]) => Math.hypot(...values);
  return a.length === b.length ? norm(a.map((value, i) => value - b[i])) / norm(b) : Infinity;
};

/**
 * Fails unless an answer is that of the first contender, within rounding. Training steps drift apart, since rounding grows
 * from step to step: of three only the first has to be as close as other work.
 */
const assertAgrees = (work: Case, sample: readonly number[], answer: readonly number[]) => {
  const [begun, wanted] = [sample, answer].map((all) => isStep(work) ? all.slice(0, all.length / 3) : all);
  const apart = distance(begun, wanted), drift = distance(sample, answer);
  if (!(apart <= 1e-4)) throw new Error(`its answer is another one, by ${apart.toPrecision(2)}`);
  if (!(drift <= 1e-2)) { // rounding grows from step to step
    throw new Error(`its later losses are others, by ${drift.toPrecision(2)}`);
  }
};

const isStep = ({ kind }: Case) => kind.endsWith(" step");

interface Entrant {
  readonly name: string;
  readonly contender: Contender;
  readonly runs: number;
  readonly timings: Taken[];
}

/** Those who have the answer of the first one, each with the number of runs that makes a long timing. */
const entrantsOf = async (commands: ReadonlyMap<string, readonly string[]>, place: number) => {
  const work = CASES[place];
  const entrants: Entrant[] = [];
  let answer: readonly number[] | null = null;
  for (const [name, command] of commands) {
    if (!takesPart(name, work)) continue;
    const contender = await trying(`${work.name}: ${name}`, () => started(command));
    if (contender === null) continue;
    const { ask, end } = contender;
    const runs = await trying(`${work.name}: ${name}`, async () => {
      const sample = await sampleOf(ask, place);
      assertAgrees(work, sample, answer ??= sample);
      if (!isStep(work)) await timed(ask, 1); // drivers and compilers may still be at work; three steps are done
      return await runsPerTiming(ask);
    });
    if (runs === null) await end();
    else entrants.push({ name, contender, runs, timings: [] });
  }
  return entrants;
};

const [filter = "", rounds = "7"] = Deno.args;
const selected = [...CASES.entries()].filter(([, { name }]) => name.includes(filter));
if (selected.length === 0) {
  throw new Error(`no case is called "${filter}", but ${CASES.map(({ name }) => name).join("; ")}`);
}
Deno.mkdirSync(FOLDER, { recursive: true });
const commands = new Map<string, readonly string[]>();
for (const [name, command] of Object.entries(contenders)) {
  if (!selected.some(([, work]) => takesPart(name, work))) continue;
  const found = await trying(name, () => Promise.resolve().then(command));
  if (found !== null) commands.set(name, found);
}

interface Result {
  readonly name: string;
  /** The timings of each contender, side by side in each round. */
  readonly timings: Readonly<Record<string, readonly Taken[]>>;
}

const results: Result[] = [];
for (const [place, { name }] of selected) {
  const entrants = await entrantsOf(commands, place);
  for (let round = 0; round < Number(rounds); round++) {
    for (const { contender, runs, timings } of entrants) timings.push(await timed(contender.ask, runs));
  }
  for (const { contender } of entrants) await contender.end();
  results.push({ name, timings: Object.fromEntries(entrants.map(({ name, timings }) => [name, timings])) });
}

const millisecondsOf = (timings: readonly Taken[]) => timings.map(({ milliseconds }) => milliseconds);

// How many times as long as ours a peer takes: the median over rounds, whose parts were measured side by side.
const timeOf = (name: string, { timings }: Result) => {
  const own = millisecondsOf(timings[name]);
  const ratios = Object.keys(timings).filter((other) => isOurs(other) && !isOurs(name)).map((other) =>
    `×${median(millisecondsOf(timings[other]).map((value, round) => own[round] / value)).toPrecision(2)}`
  );
  return `${median(own).toPrecision(3)} ms  ${ratios.join(" ")}`;
};

/** Of the device in the middle of all runs, and of memory at the end. */
const useOf = (name: string, { timings }: Result) => {
  const own = timings[name];
  const { planned, resident } = own[own.length - 1];
  const device = own.flatMap(({ device }) => device ?? []);
  return [
    ...device.length === 0 ? [] : [`device ${median(device).toPrecision(3)} ms`],
    ...planned === undefined ? [] : [`plan ${writtenBytes(planned)}`],
    `process ${writtenBytes(resident)}`,
  ].join(", ");
};

const printed = (rows: readonly Result[], cell: (name: string, result: Result) => string) => {
  const names = [...commands.keys()].filter((name) => rows.some(({ timings }) => name in timings));
  const cells = (result: Result) => names.map((name) => name in result.timings ? cell(name, result) : "");
  console.log(table([["", ...names], ...rows.map((each) => [each.name, ...cells(each)])]));
};

console.log("Median of a run; behind a peer's the times that ours goes into it, then ours on Dawn");
printed(results, timeOf);
const steps = results.filter((_, i) => isStep(selected[i][1]));
if (steps.length > 0) {
  console.log("\nOf steps: time on the device, device memory by the plan, and the whole process's memory");
  printed(steps, useOf);
}
Deno.writeTextFileSync(`${FOLDER}/peers.json`, `${JSON.stringify(results, null, 2)}\n`);
Deno.exit(); // the contenders end with their standard input
