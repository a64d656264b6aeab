/**
 * The same work in this project and in its peers, in turns: `deno task bench:peers`, or `deno task bench:peers conv` for
 * the cases with this in their names. Peers are fetched when they are first asked for, into Deno's cache; nothing else
 * knows of them. One that does not run here is left out.
 */
import { table } from "../../pipeline/run/table.ts";
import { median } from "../_timing.ts";
import { type Case, CASES, CLASSES, MOMENTUM, RATE } from "./cases.ts";
import { linesOf, type Reply, type Request } from "./contender.ts";

const ROUNDS = 7;
const TIMING_MILLISECONDS = 300;
const FOLDER = "runs/bench";

const here = import.meta.dirname!;
const deno = ["deno", "run", "--no-prompt", "--quiet", "--allow-env", "--allow-sys", "--allow-read=."];
const ours = [...deno, "--allow-ffi=node_modules", `${here}/ours.ts`];
const apart = ["--no-config", "--no-lock"]; // a peer is none of the project's libraries

const TFJS = "4.22.0";
const JAX_JS = "0.1.25";

/** The commands that start the contenders, ours first. */
const contenders: Readonly<Record<string, () => readonly string[]>> = {
  "ours": () => [...ours, "native"],
  "ours on Dawn": () => [...ours, "dawn"],
  "tfjs-webgpu": () => [...deno, ...apart, `${here}/tfjs.ts`, bundledTfjs()],
  "jax-js": () => [...deno, ...apart, `${here}/jax_js.ts`, `npm:@jax-js/jax@${JAX_JS}`],
  "PyTorch CPU": () => {
    const work = { cases: CASES, classes: CLASSES, rate: RATE, momentum: MOMENTUM };
    return [pythonWithTorch(), `${here}/torch_cpu.py`, JSON.stringify(work)];
  },
};

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

type Ask = (request: Request) => Promise<Reply>;

/** Starts a contender and waits until it is ready. */
const started = async ([command, ...args]: readonly string[]): Promise<Ask> => {
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
  return async (request) => {
    await input.write(new TextEncoder().encode(`${JSON.stringify(request)}\n`));
    return await reply();
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

const millisecondsOf = async (ask: Ask, runs: number): Promise<number> => {
  const reply = await ask({ run: runs });
  if (!("milliseconds" in reply)) throw new Error("error" in reply ? reply.error : "no time");
  return reply.milliseconds / runs;
};

/** How many runs make a timing long enough for the wait at its end, some 11 ms, to be lost in it. */
const runsPerTiming = async (ask: Ask): Promise<number> => {
  for (let count = 1;; count *= 4) {
    const milliseconds = count * await millisecondsOf(ask, count);
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
const assertAgrees = (kind: Case["kind"], sample: readonly number[], answer: readonly number[]) => {
  const isStep = kind === "ResNet-18 step" || kind === "SlotCon step";
  const [begun, wanted] = [sample, answer].map((all) => isStep ? all.slice(0, all.length / 3) : all);
  const apart = distance(begun, wanted), drift = distance(sample, answer);
  if (!(apart <= 1e-4)) throw new Error(`its answer is another one, by ${apart.toPrecision(2)}`);
  if (!(drift <= 1e-2)) throw new Error(`its later losses are others, by ${drift.toPrecision(2)}`);
};

interface Entrant {
  readonly name: string;
  readonly ask: Ask;
  readonly runs: number;
  readonly milliseconds: number[];
}

/** Those who have the answer of the first one, each with the number of runs that makes a long timing. */
const entrantsOf = async (asks: ReadonlyMap<string, Ask>, place: number): Promise<Entrant[]> => {
  const entrants: Entrant[] = [];
  let answer: readonly number[] | null = null;
  for (const [name, ask] of asks) {
    const entrant = await trying(`${CASES[place].name}: ${name}`, async () => {
      const sample = await sampleOf(ask, place);
      assertAgrees(CASES[place].kind, sample, answer ??= sample);
      await millisecondsOf(ask, 1); // drivers and compilers may still be at work
      const runs = await runsPerTiming(ask);
      return { name, ask, runs, milliseconds: [] };
    });
    if (entrant !== null) entrants.push(entrant);
  }
  return entrants;
};

Deno.mkdirSync(FOLDER, { recursive: true });
const asks = new Map<string, Ask>();
for (const [name, command] of Object.entries(contenders)) {
  const ask = await trying(name, () => started(command()));
  if (ask !== null) asks.set(name, ask);
}

const results: { name: string; milliseconds: Record<string, readonly number[]> }[] = [];
for (const [place, { name }] of CASES.entries()) {
  if (!name.includes(Deno.args[0] ?? "")) continue;
  const entrants = await entrantsOf(asks, place);
  for (let round = 0; round < ROUNDS; round++) {
    for (const { ask, runs, milliseconds } of entrants) milliseconds.push(await millisecondsOf(ask, runs));
  }
  results.push({
    name,
    milliseconds: Object.fromEntries(entrants.map(({ name, milliseconds }) => [name, milliseconds])),
  });
}

// How many times as long as ours a peer takes: the median over rounds, whose parts were measured side by side.
const cells = ({ milliseconds }: (typeof results)[number]) =>
  [...asks.keys()].map((name) => {
    const own = milliseconds[name];
    if (own === undefined) return "";
    const ratios = Object.keys(milliseconds).filter((other) => isOurs(other) && !isOurs(name)).map((other) =>
      `×${median(own.map((value, round) => value / milliseconds[other][round])).toPrecision(2)}`
    );
    return `${median(own).toPrecision(3)} ms  ${ratios.join(" ")}`;
  });
const isOurs = (name: string) => name.startsWith("ours");
console.log("Median of a run; behind a peer's the times that ours goes into it, then ours on Dawn");
console.log(table([["", ...asks.keys()], ...results.map((each) => [each.name, ...cells(each)])]));
Deno.writeTextFileSync(`${FOLDER}/peers.json`, `${JSON.stringify(results, null, 2)}\n`);
Deno.exit(); // the contenders end with their standard input
