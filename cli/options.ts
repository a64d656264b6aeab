/** The options of a run as flags of a command, made from the one table in pipeline/config.ts. */
import { Effect, Option } from "effect";
import { type Command, Flag } from "effect/cli";
import { match } from "ts-pattern";
import {
  type Config,
  configure,
  type OptionName,
  optionNames,
  OPTIONS,
  presetNames,
  type Settings,
} from "../pipeline/pretrain/config.ts";
import { readConfigFile } from "../pipeline/run/config_file.ts";
import { flagName } from "../pipeline/run/option_name.ts";
import type { ConfigError, Option as RunOption } from "../pipeline/run/options.ts";

const flag = (name: OptionName): Flag.Flag<Option.Option<unknown>> => {
  const { kind, choices, help, initial } = OPTIONS[name] as RunOption<unknown>;
  const written = flagName(name);
  const typed: Flag.Flag<unknown> = match(kind)
    .with("choice", () => Flag.Literals(written, choices!))
    .with("path", () => Flag.String(written).pipe(Flag.withMetavar("PATH")))
    .with("url", () => Flag.String(written).pipe(Flag.withMetavar("URL")))
    .with("device", () => Flag.String(written).pipe(Flag.withMetavar("WEBGPU")))
    .with("size", () => Flag.String(written).pipe(Flag.withMetavar("SIZE")))
    .with("integer", () => Flag.Int(written))
    .with("number", () => Flag.Finite(written))
    .with("switch", () => Flag.Boolean(written))
    .exhaustive();
  return typed.pipe(
    Flag.withDescription(initial === null || kind === "switch" ? help : `${help} (default: ${initial})`),
    Flag.optional,
  );
};

/** Flags for `Command.make`: `--preset`, `--config` and every option of a run. */
export const configFlags = {
  preset: Flag.Literals("preset", presetNames).pipe(
    Flag.withDescription("a published run, or the demo's, whose options are the defaults"),
    Flag.optional,
  ),
  config: Flag.String("config").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("YAML or JSON file of options; flags win over it"),
    Flag.optional,
  ),
  ...Object.fromEntries(optionNames.map((name) => [name, flag(name)])) as Record<
    OptionName,
    ReturnType<typeof flag>
  >,
};

type Parsed = Command.Command.Config.Infer<typeof configFlags>;

/** The configuration that the flags, the file they name and the preset give. Fails with a `ConfigError`. */
export const configOf = Effect.fn("configOf")(
  function* (parsed: Parsed): Effect.fn.Return<Config, ConfigError> {
    const flags: Settings = new Map(optionNames.flatMap((name) =>
      Option.match(parsed[name], {
        onNone: () => [],
        onSome: (value) => [[name, { value, where: `--${flagName(name)}` }] as const],
      })
    ));
    const file = Option.isSome(parsed.config) ? yield* readConfigFile(parsed.config.value) : null;
    const preset = Option.getOrNull(parsed.preset) ?? file?.preset ?? null;
    return yield* configure(preset, file?.settings ?? new Map(), flags);
  },
);
