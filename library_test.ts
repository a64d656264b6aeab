/** The library as its users meet it: what is documented, what is published, what runs in a browser. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "./data/_test_kit.ts";
import { exists } from "./data/files/exists.ts";
import config from "./deno.json" with { type: "json" };
import { PROJECT_VERSION } from "./pipeline/run/project_version.ts";

const ROOT = import.meta.dirname!;
const ENTRIES: readonly string[] = Object.values(config.exports);

/** What a program prints: stdout, and stderr. */
const run = async (program: string, args: string[], cwd = ROOT) => {
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args,
    cwd,
    env: { NO_COLOR: "1" },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { success, stdout: text(stdout), stderr: text(stderr) };
};

/** What a program prints to stdout; fails with all that it says where it fails. */
const succeed = async (...args: Parameters<typeof run>): Promise<string> => {
  const { success, stdout, stderr } = await run(...args);
  assert.ok(success, `${args[1].join(" ")}\n${stdout}\n${stderr}`);
  return stdout;
};

/** A program that a user might write: types of results and of what functions take, in every entry. */
const PROGRAM = `
import { Effect, type Scope } from "effect";
import * as slotcon from "@slotcon/slotcon";
import { compile, type DeviceState, defineOp, type Gpu, type GpuError, type Graph, input, type OpDefinition } from "@slotcon/slotcon/ops";
import { kernel, type LoweringContext, mean, mul, type Outputs, type PlanError, sub, type Upload } from "@slotcon/slotcon/ops";
import { linear, type Optimizer, optimize, StateBuilder, student, type Sync } from "@slotcon/slotcon/model";
import { type CheckpointError, convert, type FormatError, openWeights } from "@slotcon/slotcon/weights";

const definition: Omit<OpDefinition<void>, "name"> = {
  shape: ([x]) => x.shape,
  kernels: ({ inputs: [x], output: y }: LoweringContext<void>) => [
    kernel({ label: "twice", reads: { x }, writes: { y }, threads: 8, main: "y[id] = 2.0 * x[id];" }),
  ],
};
export const twice = defineOp("twice", definition);

const plain: Optimizer = (parameter, gradient, _buffer, { rate }) => ({
  parameter: sub(parameter, mul(rate, gradient)),
  buffers: new Map(),
});
const state = new StateBuilder();
const x = linear(student(state, null), "fc", input("x", [8, 3]), 1);
const objective = { state, loss: mean(mul(x, x)), metrics: {} };
const step = optimize(objective, input("rate", []), { optimizer: plain, weightDecay: 0, momentum: 0.9 });

export const run = (graph: Graph, buffers: DeviceState, values: Record<string, Upload>): Effect.Effect<
  Outputs,
  GpuError | PlanError | slotcon.CollectiveError,
  Gpu | Scope.Scope
> => Effect.flatMap(compile(graph, buffers), (program) => Effect.flatten(program.run(values)));
export const graph: Graph = { label: "a step", updates: step.state.updates, outputs: step.metrics };

export const mine: slotcon.StepBuilder = (views, rates, config: slotcon.StepConfig) => {
  const sync: Sync = config.sync;
  return slotcon.slotConStep(views, rates, { ...config, sync });
};
export const trained: Effect.Effect<
  string,
  slotcon.ConfigError | slotcon.ImageListError | slotcon.PretrainError | GpuError
> = Effect.gen(function* () {
  const demo: slotcon.Config = yield* slotcon.configure("demo");
  const config = { ...demo, dataset: "Folder" as const, dataDir: "data", saveFreq: 1 };
  const steps: number = yield* slotcon.pretrain(config, yield* slotcon.listImages(config), mine);
  return steps + config.outputDir;
}).pipe(Effect.provide(slotcon.native));

export const tuned: Effect.Effect<
  number,
  | slotcon.ConfigError
  | slotcon.SegmentationSetError
  | slotcon.LabelError
  | slotcon.SegmentationError
  | GpuError
> = Effect.gen(function* () {
  const config: slotcon.SegmentationConfig = yield* slotcon.configureSegmentation("voc");
  const train: slotcon.SegmentationSet = yield* slotcon.openSegmentation(config, "train");
  const step: slotcon.SegmentationStepBuilder = slotcon.segmentationStep;
  return yield* slotcon.transferSegmentation(config, { train, val: null }, step);
}).pipe(Effect.provide(slotcon.native));

export const bytes: Effect.Effect<
  readonly Uint8Array[],
  FormatError | CheckpointError | slotcon.ConvertError | slotcon.ExportError
> = Effect.gen(function* () {
  const weights = yield* openWeights("a.pth");
  return (yield* convert(weights, { to: "onnx", which: "teacher" })).pieces;
}).pipe(Effect.scoped);

// @ts-expect-error: types are whole, not any
export const wrong: Effect.Effect<number, never> = slotcon.configure("demo");
`;

/**
 * Type-checks `PROGRAM` in a project of its own, once for each of `packages`: a folder, in which an entry is the file that
 * it makes of its path here. One run of the compiler checks them all, which share the types of effect.
 */
const checkProgram = async (
  folder: string,
  packages: Readonly<Record<string, (entry: string) => string>>,
) => {
  const scopes = Object.entries(packages).map(([name, fileOf]) => {
    const entries = Object.entries(config.exports).map(([entry, file]) =>
      [`@slotcon/slotcon${entry.slice(1)}`, fileOf(file)] as const
    );
    return [`./${name}/`, Object.fromEntries(entries)] as const;
  });
  const settings = { imports: config.imports, scopes: Object.fromEntries(scopes) };
  await Deno.writeTextFile(join(folder, "deno.json"), JSON.stringify(settings));
  const programs = Object.keys(packages).map((name) => `${name}/program.ts`);
  for (const program of programs) {
    await Deno.mkdir(join(folder, program, ".."));
    await Deno.writeTextFile(join(folder, program), PROGRAM);
  }
  await succeed(Deno.execPath(), ["check", "--cached-only", ...programs], folder);
};

/** Types of effect, which `deno doc` takes for private since the library does not export them itself. */
const OF_EFFECT: readonly string[] = [
  "Codec",
  "Effect",
  "Error",
  "Layer",
  "Reference",
  "Scope",
  "Service",
  "Stream",
];

Deno.test("every export has documentation and an explicit type, and all types that it names are exported", async () => {
  const { stderr } = await run(Deno.execPath(), ["doc", "--lint", ...ENTRIES]);
  const errors = stderr.split(/\n(?=error)/).filter((text) => text.startsWith("error["));
  const isOfEffect = (error: string) =>
    OF_EFFECT.some((type) =>
      /^error\[private-type-ref\].* references private type '(\w+)'/.exec(error)?.[1] === type
    );
  assert.ok(errors.some(isOfEffect), stderr);
  assert.deepEqual(errors.filter((error) => !isOfEffect(error)), []);
});

interface Module {
  readonly specifier: string;
  readonly dependencies?: readonly {
    readonly specifier: string;
    readonly code?: { readonly specifier?: string };
    readonly isDynamic?: boolean;
  }[];
}

for (const entry of [config.exports["./ops"], config.exports["./model"]]) {
  Deno.test(`${entry} can be bundled for a browser: it loads nothing of Deno or Node`, async () => {
    const { modules } = JSON.parse(await succeed(Deno.execPath(), ["info", "--json", entry])) as {
      readonly modules: readonly Module[];
    };
    const own = new Map(modules.map((module) => [module.specifier, module]));
    const packages = new Set<string>();
    const loaded = new Set<string>();
    const load = (specifier: string) => {
      if (loaded.has(specifier)) return;
      loaded.add(specifier);
      for (const { specifier: name, code, isDynamic = false } of own.get(specifier)?.dependencies ?? []) {
        if (code?.specifier?.startsWith("file:")) load(code.specifier);
        else if (code !== undefined && !isDynamic) packages.add(name);
      }
    };
    load(`file://${join(ROOT, entry)}`);
    assert.ok(loaded.size > 30);
    assert.deepEqual([...packages].filter((name) => name !== "effect"), []);
    const usesDeno = [...loaded].filter((file) => /\bDeno\.\w/.test(Deno.readTextFileSync(new URL(file))));
    assert.deepEqual(usesDeno, []);
  });
}

Deno.test(
  "a program of another project type-checks against the entries and against the published declarations",
  inTestFolder(async (folder) => {
    await succeed(Deno.execPath(), ["pack", "--allow-dirty", "--output", join(folder, "package.tgz")]);
    await succeed("sh", ["-c", "tar xzf package.tgz"], folder);
    // A declaration file imports the others as the `.js` files that they describe, where only packages of npm are looked up.
    const own = join(folder, "package");
    for (const file of filesIn(own, ".d.ts")) {
      const text = await Deno.readTextFile(file);
      await Deno.writeTextFile(file, text.replaceAll(/(from|import\() ?"(\.[^"]*)\.js"/g, '$1 "$2.d.ts"'));
    }
    await checkProgram(folder, {
      entries: (entry) => join(ROOT, entry),
      declarations: (entry) => join(own, entry.replace(/\.ts$/, ".d.ts")),
    });
    assert.deepEqual(filesIn(own, ".js").flatMap(missingImports), []);
    assert.equal(PROJECT_VERSION, config.version);
  }),
);

Deno.test("the example in docs/transfer.md type-checks", async () => {
  assert.match(await Deno.readTextFile(join(ROOT, "docs/transfer.md")), /^```ts$/m);
  await succeed(Deno.execPath(), ["check", "--doc-only", "docs/transfer.md"]);
});

const filesIn = (folder: string, suffix: string): string[] =>
  [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    return isDirectory ? filesIn(path, suffix) : name.endsWith(suffix) ? [path] : [];
  });

/** What a file of a package imports that is not there. */
const missingImports = (file: string): string[] =>
  [...Deno.readTextFileSync(file).matchAll(/\b(?:from|import)\s*\(?"(\.[^"]*)"/g)]
    .map(([, path]) => join(file, "..", path)).filter((path) => !exists(path));
