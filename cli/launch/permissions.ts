/**
 * The permissions of a command, as Deno's flags.
 *
 * `cli/slotcon` runs this file before every command and starts the command with the flags it prints, one a line: the
 * command then reads and writes only what its options or its configuration file name, and it has no network beyond the
 * collector that --otlp names. Every command waits for this, so it imports little.
 */
import { join, resolve } from "node:path";
import { isFile } from "../../data/files/exists.ts";
import { printableText } from "../../data/files/printable.ts";
import { launchedAs, launchVariables, mpiLibraries } from "../../pipeline/ranks/launch.ts";
import { deviceVariables, vulkanLibraries } from "../../pipeline/ranks/vulkan.ts";
import { sharedSpelling } from "../../pipeline/run/option_name.ts";
import { type Access, accessOf } from "./access.ts";

/** The flags for `slotcon ...args`. */
export const permissionFlags = async ([command = "", ...args]: readonly string[]): Promise<string[]> => {
  const { access, switches = [] } = accessOf(command);
  const { options, operands } = parse(args, switches);
  const all = (name: string) => options.get(sharedSpelling(name)) ?? [];
  const configured = await readConfig(all("config").at(-1) ?? "");
  return flags(access({
    all,
    option: (name) => all(name).at(-1) ?? configured.get(sharedSpelling(name)) ?? "",
    has: (name) => options.has(sharedSpelling(name)),
    operands,
  }));
};

/**
 * The flags for the tests. They also write anywhere, as making links needs, start the launcher in a shell, and speak to
 * this machine over the network.
 */
export const testFlags = (): string[] => [
  ...flags({ run: [Deno.execPath(), "sh"] }).filter((flag) => !/^--allow-(read|write)=/.test(flag)),
  "--allow-read",
  "--allow-write",
  "--allow-net=127.0.0.1",
];

interface Parsed {
  readonly options: ReadonlyMap<string, readonly string[]>; // by their shared spelling; "" without a value
  readonly operands: readonly string[];
}

/**
 * Options and operands of a command, told apart as `effect/cli` does: "--data-dir X" and "--data-dir=X" are options, and
 * all that follows "--" are operands. What is wrong with them is for the command itself to say.
 */
const parse = (args: readonly string[], switches: readonly string[]): Parsed => {
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const isValue = (i: number) => i < end && !/^-[^\d.]/.test(args[i]); // also "-" and "-3"
  const options = new Map<string, string[]>();
  const operands: string[] = [];
  for (let i = 0; i < end; i++) {
    const [, name, given] = args[i].match(/^--([^=]+)(?:=(.*))?$/s) ?? [];
    if (name === undefined) {
      if (isValue(i)) operands.push(args[i]);
      continue;
    }
    const isSwitch = switches.includes(name.replace(/^no-/, ""));
    const value = given ?? (!isSwitch && isValue(i + 1) ? args[++i] : "");
    const key = sharedSpelling(name);
    options.set(key, [...options.get(key) ?? [], value]);
  }
  return { options, operands: [...operands, ...args.slice(end + 1)] };
};

/** The options in a configuration file, by their shared spelling; none where it cannot be read, which the command will say. */
const readConfig = async (path: string): Promise<ReadonlyMap<string, string>> => {
  if (!isFile(path)) return new Map();
  try {
    const { parse } = await import("yaml");
    const entries = Object.entries(parse(Deno.readTextFileSync(path)) as Record<string, unknown>);
    const textOf = (value: unknown) => /string|number/.test(typeof value) ? String(value) : "";
    return new Map(entries.map(([key, value]) => [sharedSpelling(key), textOf(value)]));
  } catch {
    return new Map();
  }
};

const ROOT = resolve(import.meta.dirname!, "../..");

const ENVIRONMENT = [
  ...["CI", "COLORTERM", "FORCE_COLOR", "NO_COLOR", "SLOTCON_DEVICE", "SLOTCON_NOHUP", "TERM", "TMPDIR"],
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

/**
 * Commas separate the paths of a flag and newlines the flags, and neither can be quoted: whatever else were allowed in
 * place of such a path would be more than that path.
 */
const allowable = (path: string): string => {
  if (!/[,\n\r\0]/.test(path)) return path;
  throw new UnsafePath(path);
};

/** A path that cannot be allowed without allowing others. */
class UnsafePath extends Error {
  constructor(path: string) {
    super(
      `${
        JSON.stringify(path)
      } has a comma or a line break in its name, which Deno's permissions cannot express: rename it`,
    );
  }
}

/** Libraries of the system: Vulkan's loader, which WebGPU uses, too, and that of MPI for a rank. */
const libraries = (): string[] => {
  const environment = (name: string) => Deno.env.get(name);
  const launch = launchedAs(environment);
  return [...vulkanLibraries(environment), ...launch === null ? [] : mpiLibraries(launch, environment)]
    .filter(isFile);
};

if (import.meta.main) {
  try {
    console.log((await permissionFlags(Deno.args)).join("\n"));
  } catch (error) {
    if (!(error instanceof UnsafePath)) throw error;
    console.error(`slotcon: ${printableText(error.message)}`);
    Deno.exit(1);
  }
}
