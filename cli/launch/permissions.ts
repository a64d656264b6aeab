/**
 * What a command may touch, as Deno's permission flags.
 *
 * `cli/slotcon` runs this file before every command and starts the command with the flags it prints, one a line: the
 * command then reads and writes only what its options or its configuration file name, and it has no network beyond the
 * collector that --otlp names. Every command waits for this, so it imports little.
 */
import { dirname, join, resolve } from "node:path";
import { launchedAs, launchVariables, mpiLibraries } from "../../pipeline/ranks/launch.ts";
import { deviceVariables, vulkanLibraries } from "../../pipeline/ranks/vulkan.ts";
import { sharedSpelling } from "../../pipeline/run/option_name.ts";

/** What a command may touch beyond the project's own folder: paths, of which empty ones count for nothing, and hosts. */
interface Access {
  readonly read?: readonly string[];
  readonly write?: readonly string[]; // these may be read as well
  readonly run?: readonly string[];
  readonly net?: readonly string[]; // "host:port"
}

interface Request {
  readonly option: (name: string) => string; // "" where it is not given
  readonly has: (name: string) => boolean; // whether it is among the arguments
  readonly operands: readonly string[]; // what is neither an option nor the value of one
}

const ACCESS: Readonly<Record<string, (request: Request) => Access>> = {
  pretrain: ({ option, has }) => ({
    read: inputs(option),
    write: [option("output-dir") || usual(option).output],
    run: launcher(option),
    net: [...hostOf(option("otlp")), ...has("watch") ? [LOCALHOST] : []],
  }),
  demo: ({ option }) => ({ write: [option("output-dir") || "runs/demo"] }),
  doctor: ({ option }) => ({
    read: [...inputs(option), "/usr/share/vulkan", "/etc/vulkan"],
    write: [
      option("dump-program"),
      ...option("output-dir") === "" ? ["output", "runs/demo"] : [option("output-dir")],
    ],
    run: launcher(option),
  }),
  tune: ({ option }) => ({ read: inputs(option) }),
  verify: ({ option, operands }) => ({
    read: operands.flatMap((recording) => [recording, join(dirname(recording), "pictures")]),
    write: [option("out")],
    run: launcher(option),
  }),
  convert: ({ operands: [from = "", to = ""] }) => ({
    read: [from, folderOf(to)],
    write: to === "" ? [] : [to, `${to}.partial`],
  }),
  inspect: ({ option, operands: [file = ""] }) => ({
    read: [file, ...option("data-dir") === "" ? [] : withListed(option("data-dir"))],
  }),
  evaluate: ({ option, operands: [, file = ""] }) => {
    const output = option("output");
    const files = [output, output.replace(/\.json$/, ".html")].flatMap((path) => [path, `${path}.partial`]);
    return {
      read: [file, option("data-dir"), folderOf(output)],
      write: output !== "" ? files : file !== "" ? [join(dirname(file), "evaluations")] : [],
    };
  },
  visualize: ({ option, operands: [file = "", ...pictures] }) => {
    const target = option("save-path") || "viz_slots.jpg";
    const written = [target, target.replace(/\.[^.]*$/, ".html")];
    const shown = [...pictures, option("images")]; // a value of --images counts as an operand
    const data = shown.some((path) => path !== "")
      ? shown
      : withListed(option("data-dir") || "datasets/coco");
    return { read: [file, ...data, folderOf(target)], write: written.flatMap((to) => [to, `${to}.partial`]) };
  },
  watch: ({ option, operands }) => ({
    read: [...operands, option("overlay")], // a value of --overlay counts as an operand, unless it comes with "="
    net: [/^[\w.:-]+$/.test(option("host")) ? bracketed(option("host")) : LOCALHOST],
  }),
  test: () => ({ read: [Deno.execPath()], run: [Deno.execPath()] }), // the tests are a process of their own
};

/**
 * What the tests may do besides: write anywhere, as making links needs, start the launcher in a shell, and speak to this
 * machine over the network.
 */
export const testFlags = (): string[] => [
  ...flags({ run: [Deno.execPath(), "sh"] }).filter((flag) => !/^--allow-(read|write)=/.test(flag)),
  "--allow-read",
  "--allow-write",
  "--allow-net=127.0.0.1",
];

/** Options that take a value, of commands that have operands as well. */
const VALUED = [
  "to which out device data-dir dataset pictures output labels image-size output-stride batch-size seed",
  "k temperature epochs lr momentum weight-decay topk sampling idxs save-path",
  "port host ranks",
].flatMap((names) => names.split(" ").map(sharedSpelling));

/** The flags for `slotcon ...args`. */
export const permissionFlags = async (args: readonly string[]): Promise<string[]> => {
  const given = parseOptions(args.slice(1));
  const configured = await readConfig(given.get("config") ?? "");
  const option = (name: string) =>
    given.get(sharedSpelling(name)) ?? configured.get(sharedSpelling(name)) ?? "";
  const isValued = (argument: string) =>
    argument.startsWith("--") && VALUED.includes(sharedSpelling(argument.slice(2)));
  const operands = args.slice(1).filter((argument, i) => !argument.startsWith("-") && !isValued(args[i]));
  const has = (name: string) => given.has(sharedSpelling(name));
  return flags(ACCESS[args[0]]?.({ option, has, operands }) ?? {});
};

const ROOT = resolve(import.meta.dirname!, "../..");

const ENVIRONMENT = [
  ...["CI", "COLORTERM", "FORCE_COLOR", "NO_COLOR", "SLOTCON_DEVICE", "TERM", "TMPDIR"],
  ...["DENO_DIR", "MESA_SHADER_CACHE_DIR"],
  ...deviceVariables,
  ...launchVariables,
];

const flags = ({ read = [], write = [], run = [], net = [] }: Access): string[] => {
  const writable = [join(ROOT, ".cache"), ...write];
  return [
    `--allow-read=${list([ROOT, ...read, ...writable])}`,
    `--allow-write=${list(writable)}`,
    ...run.length > 0 ? [`--allow-run=${list(run)}`] : [],
    ...net.length > 0 ? [`--allow-net=${net.join()}`] : [],
    `--allow-ffi=${list([join(ROOT, "node_modules"), ...libraries()])}`, // the image decoder, the second WebGPU
    "--allow-sys=cpus,hostname,networkInterfaces,systemMemoryInfo", // the first three: the image decoder
    `--allow-env=${ENVIRONMENT.join()}`, // the launcher makes all others read as unset
  ];
};

const list = (paths: readonly string[]): string =>
  [...new Set(paths.filter((path) => path !== "").map(allowable))].join();

/** Commas separate paths and newlines flags, and neither can be quoted: such a path is allowed by a folder above it. */
const allowable = (path: string) => /[,\n]/.test(path) ? dirname(resolve(path).split(/[,\n]/, 1)[0]) : path;

const inputs = (option: Request["option"]): string[] => [
  ...[option("data-dir") || usual(option).data, option("config"), option("init")].flatMap(withListed),
  folderOf(option("resume")), // if it is damaged, a good one beside it is looked for
];

const LOCALHOST = "127.0.0.1";

/** An address as permissions have it: that of IPv6 in brackets. */
const bracketed = (host: string) => host.includes(":") ? `[${host}]` : host;

/** Host and port of a URL; none where it is none, which the command itself will say. */
const hostOf = (url: string): string[] => {
  const { protocol, hostname, port } = URL.parse(url) ?? {};
  if (!hostname || /[,*]/.test(hostname)) return [];
  return [`${hostname}:${port || (protocol === "https:" ? 443 : 80)}`];
};

/** What starts several ranks; one of them starts none. */
const launcher = (option: Request["option"]): string[] =>
  Number(option("ranks")) > 1 && launchedAs(environment) === null ? ["mpirun"] : [];

/** Libraries of the system: Vulkan's loader, which WebGPU uses, too, and that of MPI for a rank. */
const libraries = (): string[] => {
  const launch = launchedAs(environment);
  return [...vulkanLibraries(environment), ...launch === null ? [] : mpiLibraries(launch, environment)]
    .filter(isFile);
};

const environment = (name: string) => Deno.env.get(name);

const folderOf = (path: string) => path === "" ? "" : dirname(resolve(path));

/** Where a run reads and writes if it is not told; the demo's preset has folders of its own. */
const usual = (option: Request["option"]) =>
  option("preset") === "demo"
    ? { data: "runs/demo/data", output: "runs/demo" }
    : { data: "data", output: "output" };

/** A data set may be a text file of paths: then also the folder that holds them all. */
const withListed = (path: string): string[] => {
  if (!path.endsWith(".txt") || !isFile(path)) return [path];
  const folders = Deno.readTextFileSync(path).split(/\r?\n/).filter((line) => line.trim() !== "")
    .map((line) => dirname(resolve(dirname(path), line)));
  return folders.length === 0 ? [path] : [path, folders.reduce(commonFolder)];
};

const commonFolder = (a: string, b: string): string => {
  while (a !== dirname(a) && a !== b && !b.startsWith(`${a}/`)) a = dirname(a);
  return a;
};

const isFile = (path: string): boolean => {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
};

/** "--data-dir X" and "--data-dir=X"; what is really wrong with an option is for the command itself to say. */
const parseOptions = (args: readonly string[]): Map<string, string> => {
  const options = new Map<string, string>();
  for (const [i, argument] of args.entries()) {
    const [, name, value] = argument.match(/^--([^=]+)(?:=(.*))?$/s) ?? [];
    if (name !== undefined) options.set(sharedSpelling(name), value ?? args[i + 1] ?? "");
  }
  return options;
};

const readConfig = async (path: string): Promise<Map<string, string>> => {
  if (!isFile(path)) return new Map();
  try {
    const { parse } = await import("yaml");
    const entries = Object.entries(parse(Deno.readTextFileSync(path)) as Record<string, unknown>);
    return new Map(
      entries.map((
        [key, value],
      ) => [sharedSpelling(key), /string|number/.test(typeof value) ? String(value) : ""]),
    );
  } catch {
    return new Map(); // the command will say what is wrong with the file
  }
};

if (import.meta.main) console.log((await permissionFlags(Deno.args)).join("\n"));
