/** Configuration files of a task, in YAML or in JSON, which is YAML too. Every error names the line. */
import { Effect } from "effect";
import { type Document, isMap, isScalar, LineCounter, type Node, parseDocument } from "yaml";
import { statOf } from "../../data/files/exists.ts";
import { didYouMean } from "./did_you_mean.ts";
import { flagName, sharedSpelling } from "./option_name.ts";
import { ConfigError, type Settings, type TaskOptions } from "./options.ts";

/** What a configuration file says. */
export interface ConfigFile<Name extends string, Preset extends string> {
  /** The preset that it starts from, if it names one. */
  readonly preset: Preset | null;
  /** Its options, unchecked. */
  readonly settings: Settings<Name>;
}

/** Reads a configuration file. Fails with a `ConfigError` where `parseConfig` does or the file cannot be read. */
export const readConfigFile: <C, Preset extends string>(
  path: string,
  options: TaskOptions<C, Preset>,
) => Effect.Effect<ConfigFile<keyof C & string, Preset>, ConfigError> = Effect.fn("readConfigFile")(
  function* (path, options) {
    const found = yield* Effect.sync(() => statOf(path));
    if (found !== null && (!found.isFile || found.size > MOST_BYTES)) {
      const reason = found.isFile
        ? `it has ${found.size} bytes, expected at most ${MOST_BYTES}`
        : "it is no file";
      return yield* new ConfigError({ subject: `--config "${path}"`, reason });
    }
    const text = yield* Effect.tryPromise({
      try: () => Deno.readTextFile(path),
      catch: (error) =>
        new ConfigError({
          subject: `--config "${path}"`,
          reason: error instanceof Deno.errors.NotFound
            ? "there is no such file"
            : `cannot read it (${(error as Error).message})`,
        }),
    });
    return yield* parseConfig(text, path, options);
  },
);

/**
 * The options of a task from a text of `option: value` lines. Keys may be spelt batch-size, batch_size or batchSize;
 * `preset` (as the task calls it) names the preset to start from. Values are checked later, by `configure`. Fails with a `ConfigError` where
 * the text is not YAML, or has a key that is no option of the task.
 */
export const parseConfig: <C, Preset extends string>(
  text: string,
  path: string,
  options: TaskOptions<C, Preset>,
) => Effect.Effect<ConfigFile<keyof C & string, Preset>, ConfigError> = Effect.fn("parseConfig")(
  function* <C, Preset extends string>(
    text: string,
    path: string,
    { task, names, presets, presetName }: TaskOptions<C, Preset>,
  ) {
    const presetNames = Object.keys(presets) as Preset[];
    const lines = new LineCounter();
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
    const failAt = (offset: number, reason: string) =>
      new ConfigError({ subject: `"${path}", line ${lines.linePos(offset).line}`, reason });

    const [error] = document.errors;
    if (error !== undefined) {
      return yield* failAt(error.pos[0], `this is neither YAML nor JSON: ${error.message}`);
    }
    const settings = new Map<keyof C & string, { value: unknown; where: string }>();
    let preset: Preset | null = null;
    if (document.contents === null) return { preset, settings };
    if (!isMap(document.contents)) {
      return yield* failAt(document.contents.range![0], `expected lines such as "epochs: 100"`);
    }
    for (const { key, value: node } of document.contents.items) {
      if (!isScalar(key)) return yield* failAt(0, "a key is not the name of an option");
      const line = key.range![0];
      const written = String(key.value);
      const value = yield* Effect.try({
        try: () => valueOf(node, document),
        catch: () =>
          failAt(
            line,
            `the aliases in ${written} name nothing, contain themselves or unfold to too many values: write the value itself`,
          ),
      });
      if (written === presetName) {
        const known = presetNames.find((name) => name === value);
        if (known === undefined) {
          return yield* failAt(
            line,
            unknown(presetName, String(value), presetNames, `there are ${presetNames.join(", ")}`),
          );
        }
        preset = known;
        continue;
      }
      const name = names.find((name) => sharedSpelling(name) === sharedSpelling(written));
      if (name === undefined) {
        return yield* failAt(
          line,
          unknown("option", written, names.map(flagName), `slotcon ${task} --help lists them`),
        );
      }
      if (settings.has(name)) return yield* failAt(line, `${flagName(name)} is given twice`);
      settings.set(name, { value, where: `"${path}", line ${lines.linePos(line).line}, ${written}` });
    }
    return { preset, settings };
  },
);

/** More than any configuration has. */
const MOST_BYTES = 2 ** 20;

/** The value of a node. Throws where its aliases cannot be unfolded to one that JSON can express. */
const valueOf = (node: Node | null, document: Document): unknown => {
  const value = isScalar(node) ? node.value : node?.toJS(document, { maxAliasCount: 100 }) ?? null;
  JSON.stringify(value);
  return value;
};

const unknown = (kind: string, found: string, known: readonly string[], list: string) => {
  const meant = didYouMean(found, known);
  return `there is no ${kind} "${found}"; ${meant === undefined ? list : `did you mean "${meant}"?`}`;
};
