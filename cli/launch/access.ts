/**
 * What each command may touch. A new command gets a row here and an entry in cli/commands.ts: the compiler asks for either
 * where the other is there, and cli/commands_test.ts compares rows and flags. The launcher reads this before every
 * command, so it imports little, and no command.
 */
import { dirname, join, resolve } from "node:path";
import { launchedAs } from "../../pipeline/ranks/launch.ts";
import { withListed } from "./listed_folders.ts";

/** What a command may touch beyond the project's own folder: paths and hosts. Empty paths count for nothing. */
export interface Access {
  readonly read?: readonly string[];
  readonly write?: readonly string[]; // these may be read as well
  readonly run?: readonly string[];
  readonly net?: readonly string[]; // "host" or "host:port"
}

/** The arguments of a command. */
export interface Request {
  /** The value of an option on the command line, else in the configuration file; "" where it is in neither. */
  readonly option: (name: string) => string;
  /** The values of an option that may be given several times on the command line. */
  readonly all: (name: string) => readonly string[];
  /** Whether an option is on the command line. */
  readonly has: (name: string) => boolean;
  /** The arguments that are neither options nor their values. */
  readonly operands: readonly string[];
}

interface CommandAccess {
  readonly access: (request: Request) => Access;
  /** Options without a value; needed where there are operands, since an operand may follow them. */
  readonly switches?: readonly string[];
}

export const COMMAND_ACCESS = {
  convert: {
    access: ({ operands: [from = "", to = ""] }) => ({
      read: [from, folderOf(to)],
      write: to === "" ? [] : [to, `${to}.partial`],
    }),
    switches: ["list"],
  },
  demo: { access: ({ option }) => ({ write: [option("output-dir") || "runs/demo"] }) },
  doctor: {
    access: ({ option }) => ({
      read: [...runInputs(option), "/usr/share/vulkan", "/etc/vulkan"],
      write: [
        option("dump-program"),
        ...option("output-dir") === "" ? ["output", "runs/demo"] : [option("output-dir")],
      ],
      run: launcherOfRanks(option),
    }),
  },
  evaluate: {
    access: ({ option, operands: [, file = ""] }) => {
      const output = option("output");
      const files = [output, output.replace(/\.json$/, ".html")].flatMap((path) => [path, `${path}.partial`]);
      return {
        read: [file, option("data-dir"), option("val-list"), option("class-file"), folderOf(output)],
        write: output !== "" ? files : file !== "" ? [join(dirname(file), "evaluations")] : [],
      };
    },
    switches: ["supercategories", "align-corners", "reduce-zero-label"],
  },
  inspect: {
    access: ({ option, operands: [file = ""] }) => ({
      read: [
        file,
        ...file === "" ? [] : [join(dirname(dirname(resolve(file))), "run.json")],
        ...withListed(option("data-dir")),
      ],
    }),
    switches: ["json"],
  },
  predict: {
    access: ({ option, operands }) => ({ read: operands, write: [option("output")] }),
    switches: ["align-corners"],
  },
  pretrain: { access: runAccess },
  // The tests are a process of their own.
  test: { access: () => ({ read: [Deno.execPath()], run: [Deno.execPath()] }) },
  transfer: { access: runAccess },
  tune: { access: ({ option }) => ({ read: runInputs(option) }) },
  verify: {
    access: ({ option, operands }) => ({
      read: operands.flatMap((recording) => [
        recording,
        join(dirname(recording), "pictures"),
        join(dirname(recording), "..", "augment", "pictures"), // those of segmentation's input
        // An evaluation's maps and scores are two files of one name.
        ...[".json", ".safetensors"].map((ending) => recording.replace(/\.\w+$/, ending)),
      ]),
      write: [option("out")],
      run: launcherOfRanks(option),
    }),
    switches: ["json"],
  },
  visualize: {
    access: ({ option, all, operands: [file = "", ...others] }) => {
      const target = option("save-path") || "viz_slots.jpg";
      const written = [target, target.replace(/\.[^.]*$/, ".html")];
      const pictures = [...all("images"), ...others];
      const data = pictures.length > 0 ? pictures : withListed(option("data-dir") || "datasets/coco");
      return {
        read: [file, ...data, folderOf(target)],
        write: written.flatMap((to) => [to, `${to}.partial`]),
      };
    },
  },
  watch: {
    access: ({ option, all, operands }) => ({
      read: [...operands, ...all("overlay")],
      net: [/^[\w.:-]+$/.test(option("host")) ? bracketed(option("host")) : LOCALHOST],
    }),
  },
} satisfies Record<string, CommandAccess>;

export type CommandName = keyof typeof COMMAND_ACCESS;

/** The row of a command; that of a name that is no command allows nothing. */
export const accessOf = (command: string): CommandAccess =>
  Object.hasOwn(COMMAND_ACCESS, command) ? COMMAND_ACCESS[command as CommandName] : { access: () => ({}) };

type Option = Request["option"];

/** What a run may touch. A function declaration, since the table above comes first. */
function runAccess({ option, has }: Request): Access {
  return {
    read: runInputs(option),
    write: [option("output-dir") || defaultFolders(option).output],
    run: launcherOfRanks(option),
    net: [...hostOf(option("otlp")), ...has("watch") ? [LOCALHOST] : []],
  };
}

/** What the options of a run let it read. */
const runInputs = (option: Option): string[] => [
  ...withListed(option("data-dir") || defaultFolders(option).data),
  ...["config", "init", "train-list", "val-list", "class-file"].map(option),
  option("weights") === "none" ? "" : option("weights"),
  folderOf(option("resume")), // if that checkpoint is damaged, a good one beside it is looked for
];

/** Where a run reads and writes by default; the demo's preset has folders of its own. */
const defaultFolders = (option: Option): { readonly data: string; readonly output: string } =>
  option("preset") === "demo"
    ? { data: "runs/demo/data", output: "runs/demo" }
    : { data: "data", output: "output" };

/** What starts the ranks of a command; a single rank, or one of several, starts none. */
const launcherOfRanks = (option: Option): string[] =>
  Number(option("ranks")) > 1 && launchedAs((name) => Deno.env.get(name)) === null ? ["mpirun"] : [];

const LOCALHOST = "127.0.0.1";

/** An address as permissions have it: that of IPv6 in brackets. */
const bracketed = (host: string): string => host.includes(":") ? `[${host}]` : host;

/** Host and port of a URL; none where it is no URL, which the command itself will say. */
const hostOf = (url: string): string[] => {
  const { protocol, hostname, port } = URL.parse(url) ?? {};
  if (!hostname || /[,*]/.test(hostname)) return [];
  return [`${hostname}:${port || (protocol === "https:" ? 443 : 80)}`];
};

const folderOf = (path: string): string => path === "" ? "" : dirname(resolve(path));
