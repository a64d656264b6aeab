/**
 * The options of runs: the kinds of options there are, the options that every run has, and how a task's table becomes a
 * checked configuration. A task (pipeline/pretrain/config.ts) has a table, presets and rules of its own.
 */
import { Data, Effect, Schema } from "effect";
import { masked, withoutSecrets } from "./collector_secrets.ts";
import { bytesIn } from "./bytes.ts";
import { flagName } from "./option_name.ts";

// --- Kinds of options ---

/** One option of a run: a row of its task's table. Flags of the command line and checks of files are made from it. */
export interface Option<A> {
  /** How the option is written on a command line. */
  readonly kind: "choice" | "path" | "url" | "device" | "size" | "shares" | "integer" | "number" | "switch";
  /** The values that it takes. */
  readonly schema: Schema.Codec<NonNullable<A>>;
  /** The default; null where the option may be left open. */
  readonly initial: A;
  /** One line for the command line's help. */
  readonly help: string;
  /** The words to choose from, of kind "choice" alone. */
  readonly choices?: readonly string[];
  /**
   * What changes with it. "numbers": what the run computes, so that resuming with another value deserves a note.
   * "nothing": only where and how the run works.
   */
  readonly affects: "numbers" | "nothing";
}

/** One of several words. */
export const choice = <A extends string>(choices: readonly A[], initial: A, help: string): Option<A> => (
  { kind: "choice", schema: Schema.Literals(choices), initial, help, choices, affects: "numbers" }
);
/** A file or a folder. */
export const path = (initial: string, help: string): Option<string> => (
  { kind: "path", schema: Schema.NonEmptyString, initial, help, affects: "numbers" }
);
/** An address that begins with http: or https:. */
export const url = (initial: string, help: string): Option<string> => (
  { kind: "url", schema: Schema.String.check(httpUrl), initial, help, affects: "numbers" }
);
/** An implementation of WebGPU, and the adapters to take: "native", "dawn:0,1". */
export const device = (initial: string, help: string): Option<string> => (
  { kind: "device", schema: Schema.String.check(webgpu), initial, help, affects: "numbers" }
);
/** A number of bytes: "8GiB". */
export const size = (initial: string, help: string): Option<string> => (
  { kind: "size", schema: Schema.String.check(byteSize), initial, help, affects: "numbers" }
);
/** Rising shares of a whole, each above 0 and below 1: "0.7,0.9". */
export const shares = (initial: string, help: string): Option<string> => (
  { kind: "shares", schema: Schema.String.check(risingShares), initial, help, affects: "numbers" }
);
/** On or off. */
export const onOff = (initial: boolean, help: string): Option<boolean> => (
  { kind: "switch", schema: Schema.Boolean, initial, help, affects: "numbers" }
);
/** A whole number that `schema` admits. */
export const integer = <A extends number>(initial: A, schema: Schema.Codec<A>, help: string): Option<A> => (
  { kind: "integer", schema, initial, help, affects: "numbers" } as Option<A>
);
/** A finite number within the bounds of `check`. */
export const number = (initial: number, check: Check, help: string): Option<number> => (
  { kind: "number", schema: Schema.Finite.check(check), initial, help, affects: "numbers" }
);
/** The option, which may also be left open: null, and that is its default. */
export const open = <A>(option: Option<A>): Option<A | null> =>
  ({ ...option, initial: null }) as Option<A | null>;
/** The option, which says where and how a run works and does not change what it computes. */
export const incidental = <A>(option: Option<A>): Option<A> => ({ ...option, affects: "nothing" });

/** Bounds of a number. */
export type Check = ReturnType<typeof Schema.isGreaterThan>;
/** Numbers greater than `minimum`. */
export const above: (minimum: number) => Check = Schema.isGreaterThan;
/** Numbers from `minimum` to `maximum`, unless `exclude` takes one of these two out. */
export const between = (
  minimum: number,
  maximum: number,
  exclude: { readonly exclusiveMinimum?: boolean; readonly exclusiveMaximum?: boolean } = {},
): Check => Schema.isBetween({ minimum, maximum, ...exclude });
/** Whole numbers from `minimum` on. */
export const atLeast = (minimum: number): Schema.Codec<number> =>
  Schema.Int.check(Schema.isGreaterThanOrEqualTo(minimum));

const httpUrl = Schema.makeFilter<string>(
  (text) => /^https?:$/.test(URL.parse(text)?.protocol ?? ""),
  { expected: "a URL such as http://localhost:4318" },
);
const webgpu = Schema.makeFilter<string>(
  (text) => /^(native|dawn)(:[^,]+(,[^,]+)*)?$/.test(text),
  { expected: '"native" or "dawn", or with adapters "native:0,1"' },
);
const byteSize = Schema.makeFilter<string>((text) => bytesIn(text) > 0, {
  expected: 'a size such as "8GiB"',
});
const risingShares = Schema.makeFilter<string>((text) => {
  const numbers = sharesIn(text);
  return numbers.every((share, i) => share > (numbers[i - 1] ?? 0) && share < 1);
}, { expected: 'rising numbers between 0 and 1, such as "0.7,0.9"' });

/** The numbers of an option of kind "shares". */
export const sharesIn = (text: string): number[] =>
  text.split(",").map((part) => part.trim() === "" ? NaN : Number(part));

// --- The options that every run has ---

/** The folder of the data set. A task's table lists it beside the other options of its data. */
export const DATA_DIR: Option<string> = incidental(path("data", "folder of the data set"));

/** How activations are stored. A task's table lists it beside the options of its optimiser. */
export const PRECISION: Option<"f32" | "f16"> = choice(
  ["f32", "f16"],
  "f32",
  "how activations and their gradients are stored; f16 takes half the memory, and scales the loss",
);

/**
 * The other options of every run, at the end of each task's table. A task may replace a row by one of its own. The casts
 * give rows explicit types, so that readers of the library's types need not infer them (JSR: no slow types).
 */
// deno-fmt-ignore: a table
export const RUN_OPTIONS = {
  outputDir: incidental(path("output", "folder for the log, the metrics and the checkpoints")) as Option<string>,
  autoResume: incidental(onOff(false, "go on from the newest checkpoint in the output folder, if there is one")) as Option<boolean>,
  resume: incidental(open(path("", "checkpoint to go on from"))) as Option<string | null>,
  init: incidental(open(path("", "weights to start a new run from: a checkpoint, or an encoder in any format that convert reads"))) as Option<string | null>,
  printFreq: incidental(integer(10, atLeast(1), "steps between two lines of the log")) as Option<number>,
  saveFreq: incidental(integer(50, atLeast(1), "epochs between two checkpoints that stay")) as Option<number>,
  saveSteps: incidental(open(integer(1, atLeast(1), "also save every so many steps"))) as Option<number | null>,
  saveMinutes: incidental(open(number(1, above(0), "also save every so many minutes"))) as Option<number | null>,
  keep: incidental(integer(3, atLeast(1), "how many of those other checkpoints stay, the newest ones")) as Option<number>,
  tensorboard: incidental(onOff(false, "write the metrics for TensorBoard, too: to tensorboard/ in the output folder")) as Option<boolean>,
  otlp: incidental(open(url("", "send the metrics and a span a stage to this OpenTelemetry collector, such as http://localhost:4318"))) as Option<string | null>,
  profile: incidental(onOff(false, "time every kernel of three early steps: a table in the log, and trace.json for Perfetto in the output folder")) as Option<boolean>,
  seed: integer(0, Schema.Int.check(between(0, 2 ** 32 - 1)), "seed of the initial weights and of all random draws") as Option<number>,
  numWorkers: incidental(integer(Math.min(8, navigator.hardwareConcurrency), atLeast(1), "threads that read and decode pictures")) as Option<number>,
  maxBadImages: incidental(number(0.01, between(0, 1), "share of unreadable pictures beyond which the run stops")) as Option<number>,
  device: incidental(device("native", "WebGPU of Deno (native) or of the npm package webgpu (dawn); native:0,1 also names the adapters that the ranks of a machine take")) as Option<string>,
  memoryLimit: incidental(open(size("", "device memory that a rank may take, such as 8GiB; what there is no room for is computed twice"))) as Option<string | null>,
  ranks: incidental(integer(1, atLeast(1), "processes that share every batch, one an adapter; mpirun starts them on this machine")) as Option<number>,
  allowSharedDevice: incidental(onOff(false, "let several ranks use one adapter")) as Option<boolean>,
  watchdogMinutes: incidental(number(10, above(0), "minutes that a rank waits for the others before it gives up")) as Option<number>,
};

/** The configuration that a table of options describes. */
export type ConfigOf<Table> = {
  readonly [Name in keyof Table]: Table[Name] extends Option<infer A> ? A : never;
};

/** The part of every task's configuration that the loop, its checkpoints and its reports read. */
export type RunConfig = Omit<ConfigOf<typeof RUN_OPTIONS>, "init"> & {
  /** Images a step, over all ranks. Each task has a row of its own for it. */
  readonly batchSize: number;
  /** How activations are stored, where the task lets one choose. */
  readonly precision?: "f32" | "f16";
};

// --- From a table to configurations ---

/** Options as somebody gave them, unchecked, and where: `--batch-size` or `"run.yaml", line 3, batch-size`. */
export type Settings<Name extends string = string> = ReadonlyMap<
  Name,
  { readonly value: unknown; readonly where: string }
>;

/** The options of a task whose configurations are `C`. */
export interface TaskOptions<C, Preset extends string = string> {
  /** The name of the task, and of the command that runs it. */
  readonly task: string;
  /** Its options, in the order in which help and files list them. */
  readonly table: { readonly [Name in keyof C]: Option<C[Name]> };
  /** The names of its options, in the same order. */
  readonly names: readonly (keyof C & string)[];
  /** Options of well-known runs, by the name of the run. */
  readonly presets: Readonly<Record<Preset, Partial<C>>>;
  /** What such a run is called: "preset" or "recipe". */
  readonly presetName: string;
  /**
   * The schema of each option as `config.json` and checkpoints hold it. An older file may lack options: it gets
   * defaults.
   */
  readonly fields: Schema.Struct.Fields;
  /** The schema of a configuration as `config.json` holds it. */
  readonly schema: Schema.Codec<C, Partial<C>>;
  /**
   * The configuration that a preset and settings give together. Later settings win over earlier ones, and all of them
   * over the preset. Fails with a `ConfigError` at the first option that is out of its range or contradicts another.
   */
  readonly configure: (
    preset: Preset | null,
    ...layers: readonly Settings<keyof C & string>[]
  ) => Effect.Effect<C, ConfigError>;
}

/**
 * The options of a task from its table, its presets, and the contradictions that a configuration may hold: the first
 * option that cannot go with the others, and why.
 */
export const taskOptions = <C, Preset extends string>(
  { task, table, presets, presetName = "preset", contradiction }: {
    readonly task: string;
    readonly table: TaskOptions<C>["table"];
    readonly presets: Readonly<Record<Preset, Partial<C>>>;
    readonly presetName?: string;
    readonly contradiction: (config: C) => readonly [option: keyof C & string, reason: string] | undefined;
  },
): TaskOptions<C, Preset> => {
  type Name = keyof C & string;
  const names = Object.keys(table) as Name[];
  const row = (name: Name) => table[name] as unknown as Option<string | number | boolean | null>;
  const fields = Object.fromEntries(names.map((name) => {
    const { schema, initial } = row(name);
    const stored = initial === null ? Schema.NullOr(schema) : schema;
    return [name, stored.pipe(Schema.withDecodingDefaultKey(Effect.succeed(initial)))];
  }));
  const schema = Schema.Struct(fields) as unknown as Schema.Codec<C, Partial<C>>;
  const defaults = Schema.decodeSync(schema)({});

  const configure = Effect.fn("configure")(function* (
    preset: Preset | null,
    ...layers: readonly Settings<Name>[]
  ): Effect.fn.Return<C, ConfigError> {
    const given: Settings<Name> = new Map(layers.flatMap((layer) => [...layer]));
    const values = { ...defaults, ...(preset === null ? {} : presets[preset]) } as Record<string, unknown>;
    for (const [name, { value, where }] of given) {
      const { kind, schema, initial } = row(name);
      if (value !== null || initial !== null) {
        yield* Schema.decodeUnknownEffect(schema)(value).pipe(
          Effect.mapError(({ message }) =>
            new ConfigError({
              subject: where,
              reason: `${lowerFirst(message)}, found ${
                JSON.stringify(kind === "url" ? masked(String(value)) : value)
              }`,
            })
          ),
        );
      }
      values[name] = kind === "url" && typeof value === "string" ? withoutSecrets(value) : value;
    }
    const config = values as C;
    const found = contradiction(config) ?? unevenRanks(config as RunConfig);
    if (found !== undefined) {
      const [name, reason] = found;
      return yield* new ConfigError({
        subject: given.get(name as Name)?.where ?? `--${flagName(name)}`,
        reason,
      });
    }
    return config;
  });
  return { task, table, names, presets, presetName, fields, schema, configure };
};

/** The contradiction that any task may have. */
const unevenRanks = ({ batchSize, ranks }: RunConfig) =>
  batchSize % ranks === 0
    ? undefined
    : ["ranks", `expected a divisor of the batch size ${batchSize}, found ${ranks}`] as const;

/** Something is wrong with an option: where it was given, and what to write instead. */
export class ConfigError extends Data.Error<{
  readonly subject: string; // "--batch-size", or a line of a file
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "ConfigError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `${this.subject}: ${this.reason}`;
  }
}

const lowerFirst = (sentence: string) => sentence.charAt(0).toLowerCase() + sentence.slice(1);
