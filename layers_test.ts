/** The rules of who may import whom, held against the imports that Deno finds. Tests are not bound by them. */
import assert from "node:assert/strict";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

/** Folders from the bottom up: one may import its own files, and those of the lines above its own. */
const LAYERS: readonly (readonly string[])[] = [
  ["ops/graph", "data/files", "data/random"],
  ["ops/kernels", "data/images", "data/formats"],
  ["ops", "data/formats/pickle"],
  ["ops/image", "ops/compiler", "data/formats/torch", "data/datasets"],
  ["ops/runtime", "data/datasets/segmentation"],
  ["pipeline/ranks"],
  ["pipeline/model"],
  ["pipeline/optim"],
  ["pipeline/run"],
  ["pipeline/weights"],
  ["pipeline/inference"],
  ["pipeline/visualize", "pipeline/eval"],
  ["pipeline/pretrain"],
  ["pipeline/transfer/detection", "pipeline/transfer/segmentation"],
  ["pipeline/verify", "pipeline"],
  ["."], // mod.ts and the example
  ["cli/terminal", "cli/pages", "cli/flags"],
  ["cli/launch"],
  ["cli/demo", "cli/doctor", "cli/evaluate", "cli/visualize", "cli/watch"],
  ["cli", "bench"],
  ["bench/peers"],
];

/** Imports that no layer above the lowest excludes, but that must not be. */
const APART: readonly { readonly from: RegExp; readonly to: RegExp; readonly why: string }[] = [
  { from: /^ops\//, to: /^data\//, why: "ops must run in a browser, and data reads files" },
  { from: /^data\//, to: /^ops\//, why: "data turns bytes into arrays, without a device" },
  { from: /^ops\/compiler\//, to: /^ops\/\w+\.ts$/, why: "the compiler knows no op by name" },
  {
    from: /^(ops|data|pipeline|cli)\//,
    to: /(^|\/)mod\.ts$/,
    why: "the library's entries are for its users",
  },
];

interface Import {
  readonly from: string;
  readonly to: string;
}

const ROOT = import.meta.dirname!;
const isTest = (file: string) => /(^|\/)(_[^/]*|[^/]*_test)\.ts$/.test(file);

/** The project's files of code that `wanted` takes, relative to its root. */
const sourceFiles = (folder: string, wanted: (file: string) => boolean): string[] =>
  [...Deno.readDirSync(join(ROOT, folder))].flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    if (isDirectory) return /^(\.|node_modules|runs|output)/.test(name) ? [] : sourceFiles(path, wanted);
    return name.endsWith(".ts") && wanted(path) ? [path] : [];
  });

/** The imports among `files`, types included, as `deno info` resolves them. */
const importsOf = async (files: readonly string[]): Promise<Import[]> => {
  const entry = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(entry, files.map((file) => `import "file://${join(ROOT, file)}";\n`).join(""));
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["info", "--json", "--no-remote", "--config", join(ROOT, "deno.json"), entry],
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    interface Module {
      readonly specifier: string;
      readonly dependencies?: readonly Partial<Record<"code" | "type", { readonly specifier?: string }>>[];
    }
    const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as { modules: readonly Module[] };
    const path = (url: string) => relative(ROOT, fileURLToPath(url));
    return modules.filter(({ specifier }) => specifier.startsWith(`file://${ROOT}/`)).flatMap(
      ({ specifier, dependencies = [] }) =>
        dependencies.flatMap(({ code, type }) => code?.specifier ?? type?.specifier ?? [])
          .filter((to) => to.startsWith("file:") && to.endsWith(".ts"))
          .map((to) => ({ from: path(specifier), to: path(to) }))
          .filter(({ from, to }) => !isTest(from) && !isTest(to)),
    );
  } finally {
    await Deno.remove(entry);
  }
};

/** The circles of a graph, each as the nodes that reach each other. */
const circlesOf = (arrows: ReadonlyMap<string, ReadonlySet<string>>): string[][] => {
  const reached = (from: string) => {
    const seen = new Set<string>();
    const stack = [...arrows.get(from) ?? []];
    for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
      if (seen.has(node)) continue;
      seen.add(node);
      stack.push(...arrows.get(node) ?? []);
    }
    return seen;
  };
  const reaches = new Map([...arrows.keys()].map((node) => [node, reached(node)]));
  const inCircles = [...reaches].filter(([node, seen]) => seen.has(node)).map(([node]) => node);
  const circles = Map.groupBy(
    inCircles,
    (node) => inCircles.find((other) => reaches.get(node)!.has(other) && reaches.get(other)!.has(node)),
  );
  return [...circles.values()];
};

const arrowsBetween = (pairs: readonly (readonly [string, string])[]) => {
  const arrows = new Map<string, Set<string>>();
  for (const [from, to] of pairs) arrows.set(from, (arrows.get(from) ?? new Set()).add(to));
  return arrows;
};

/** The folder whose layer binds a file: the root for `ops/mod.ts`, an entry of the library. */
const folderOf = (file: string): string => basename(file) === "mod.ts" ? "." : dirname(file);

const layerOf = (file: string): number => LAYERS.findIndex((folders) => folders.includes(folderOf(file)));

const files = sourceFiles("", (file) => !isTest(file) && !file.startsWith("testdata/"));
const imports = await importsOf(files);

Deno.test("every folder has a layer", () => {
  assert.ok(imports.length > files.length);
  assert.deepEqual(files.filter((file) => layerOf(file) < 0), []);
});

Deno.test("no import runs up the layers", () => {
  const wrong = imports.filter(({ from, to }) =>
    folderOf(from) !== folderOf(to) && layerOf(to) >= layerOf(from)
  ).map(({ from, to }) => `${from} imports ${to}, which is of a layer above or beside its own`);
  assert.deepEqual(wrong, []);
});

Deno.test("what is apart stays apart", () => {
  const wrong = imports.flatMap(({ from, to }) =>
    APART.filter((rule) => rule.from.test(from) && rule.to.test(to))
      .map(({ why }) => `${from} imports ${to}: ${why}`)
  );
  assert.deepEqual(wrong, []);
});

Deno.test("no files or folders import each other in a circle", () => {
  const ofFiles = circlesOf(arrowsBetween(imports.map(({ from, to }) => [from, to])));
  const ofFolders = circlesOf(
    arrowsBetween(
      imports.map(({ from, to }) => [dirname(from), dirname(to)] as const).filter(([a, b]) => a !== b),
    ),
  );
  assert.deepEqual([...ofFiles, ...ofFolders], []);
});

Deno.test("ops needs neither Deno nor Node outside of its runtime", () => {
  const needy = files.filter((file) => file.startsWith("ops/") && !file.startsWith("ops/runtime/"))
    .filter((file) => /\bDeno\.|"node:/.test(Deno.readTextFileSync(join(ROOT, file))));
  assert.deepEqual(needy, []);
});

Deno.test("files that comments and documents name exist", () => {
  const all = sourceFiles("", () => true);
  const names = new Set(all.flatMap((file) => [file, basename(file)]));
  const documents = ["README.md", "CONTRIBUTING.md", "docs/method.md", "docs/transfer.md"];
  const gone = [...all, ...documents].flatMap((file) => {
    const text = Deno.readTextFileSync(join(ROOT, file));
    const comments = file.endsWith(".md") ? [text] : text.match(/\/\*\*[^]*?\*\/|\/\/ .*/g) ?? [];
    return comments.flatMap((comment) => comment.match(/\b[\w/-]+\.ts\b/g) ?? [])
      .filter((path) => !names.has(path) && !all.some((other) => other.endsWith(`/${path}`)))
      .map((path) => `${file} names ${path}`);
  });
  assert.deepEqual(gone, []);
});
