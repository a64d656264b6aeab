/** The options of a task as flags of its command, made from the task's table. */
import { Effect, Option } from "effect";
import { Flag } from "effect/cli";
import { match } from "ts-pattern";
import { PRETRAIN_OPTIONS } from "../../pipeline/pretrain/config.ts";
import { SEGMENTATION_OPTIONS } from "../../pipeline/transfer/segmentation/config.ts";
import { readConfigFile } from "../../pipeline/run/config_file.ts";
import { flagName } from "../../pipeline/run/option_name.ts";
import type { ConfigError, Option as RunOption, Settings, TaskOptions } from "../../pipeline/run/options.ts";

const flag = (name: string, option: RunOption<unknown>): Flag.Flag<Option.Option<unknown>> => {
  const { kind, choices, help, initial } = option;
  const written = flagName(name);
  const typed: Flag.Flag<unknown> = match(kind)
    .with("choice", () => Flag.Literals(written, choices!))
    .with("path", () => Flag.String(written).pipe(Flag.withMetavar("PATH")))
    .with("url", () => Flag.String(written).pipe(Flag.withMetavar("URL")))
    .with("device", () => Flag.String(written).pipe(Flag.withMetavar("WEBGPU")))
    .with("size", () => Flag.String(written).pipe(Flag.withMetavar("SIZE")))
    .with("shares", () => Flag.String(written).pipe(Flag.withMetavar("SHARES")))
    .with("integer", () => Flag.Int(written))
    .with("number", () => Flag.Finite(written))
    .with("switch", () => Flag.Boolean(written))
    .exhaustive();
  const byDefault = initial === true
    ? `on; --no-${written} turns it off`
    : initial === false
    ? null
    : initial;
  return typed.pipe(
    Flag.withDescription(byDefault === null ? help : `${help} (default: ${byDefault})`),
    Flag.optional,
  );
};

/** Flags for `Command.make`: `--preset`, or as the task calls it, `--config`, and every option of the task. */
export const flagsOf = <C, Preset extends string>(
  { table, names, presets, presetName }: TaskOptions<C, Preset>,
) => ({
  preset: Flag.Literals(presetName, Object.keys(presets) as Preset[]).pipe(
    Flag.withDescription("a well-known run, whose options are the defaults"),
    Flag.optional,
  ),
  config: Flag.String("config").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("YAML or JSON file of options; flags win over it"),
    Flag.optional,
  ),
  ...Object.fromEntries(names.map((name) => [name, flag(name, table[name] as RunOption<unknown>)])) as Record<
    keyof C & string,
    ReturnType<typeof flag>
  >,
});

/** Flags for some options of a task, by their help; without one of them, what a file says holds. */
export const someFlags = <C, Name extends keyof C & string>(
  { table }: Pick<TaskOptions<C>, "table">,
  help: Readonly<Record<Name, string>>,
): Record<Name, ReturnType<typeof flag>> =>
  Object.fromEntries(
    (Object.keys(help) as Name[]).map((name) => {
      const option = table[name] as RunOption<unknown>;
      return [name, flag(name, { ...option, help: help[name], initial: null })];
    }),
  ) as Record<Name, ReturnType<typeof flag>>;

/** The options of these names that are among the flags. */
export const givenSettings = <Name extends string>(
  names: readonly Name[],
  parsed: Readonly<Record<Name, Option.Option<unknown>>>,
): Settings<Name> =>
  new Map(
    names.flatMap((name) =>
      Option.match(parsed[name], {
        onNone: () => [],
        onSome: (value) => [[name, { value, where: `--${flagName(name)}` }] as const],
      })
    ),
  );

/** The values of these flags. */
export type Parsed<C, Preset extends string> =
  & { readonly preset: Option.Option<Preset>; readonly config: Option.Option<string> }
  & Readonly<Record<keyof C & string, Option.Option<unknown>>>;

/** The configuration that the flags, the file they name and the preset give. Fails with a `ConfigError`. */
export const configFrom = <C, Preset extends string>(options: TaskOptions<C, Preset>) =>
  Effect.fn("configOf")(function* (parsed: Parsed<C, Preset>): Effect.fn.Return<C, ConfigError> {
    const flags = givenSettings(options.names, parsed);
    const file = Option.isSome(parsed.config) ? yield* readConfigFile(parsed.config.value, options) : null;
    const preset = Option.getOrNull(parsed.preset) ?? file?.preset ?? null;
    return yield* options.configure(preset, file?.settings ?? new Map(), flags);
  });

/** The flags of fine-tuning on semantic segmentation. */
export const segmentationFlags = flagsOf(SEGMENTATION_OPTIONS);

/** The configuration that these flags give. */
export const segmentationConfigOf = configFrom(SEGMENTATION_OPTIONS);

/** The flags of a pretraining run. */
export const configFlags = flagsOf(PRETRAIN_OPTIONS);

/** The configuration of a pretraining run that its flags give. */
export const configOf = configFrom(PRETRAIN_OPTIONS);
