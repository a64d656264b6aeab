/** What `slotcon tune` has found, remembered for each adapter in the project's cache. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect, Layer } from "effect";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import { TunedChoices } from "../../ops/compiler/kernel_selection.ts";
import type { AdapterReport } from "../../ops/graph/lowering.ts";
import type { Tuned } from "../../ops/runtime/autotune.ts";

const FOLDER = join(import.meta.dirname!, "../../.cache/kernels");
const FORMAT = "slotcon-kernels/1";

interface Remembered {
  readonly format: typeof FORMAT;
  readonly adapter: AdapterReport;
  /** By what the work is, as `workOf` describes it. */
  readonly choices: Readonly<Record<string, Pick<Tuned, "chosen" | "milliseconds">>>;
}

/** The file for an adapter: one with other limits, or of another driver, counts as another. */
export const tunedFile = (adapter: AdapterReport): string => {
  const name = adapter.description.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-").replaceAll(/^-|-$/g, "");
  const hash = createHash("sha256").update(JSON.stringify(adapter)).digest("hex").slice(0, 8);
  return join(FOLDER, `${name}-${hash}.json`);
};

/** What was found for this adapter so far. A file that is not what `slotcon tune` writes is passed over, and said to be. */
export const readTuned = (adapter: AdapterReport): Remembered["choices"] => {
  const file = tunedFile(adapter);
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch {
    return {};
  }
  try {
    const { format, choices }: Remembered = JSON.parse(text);
    if (format === FORMAT && Object.values(choices).every(({ chosen }) => typeof chosen === "string")) {
      return choices;
    }
  } catch {
    // said below
  }
  console.error(
    `slotcon: ${file} is not a file of tuned kernels: it is not used, and slotcon tune writes it anew`,
  );
  return {};
};

export const writeTuned = Effect.fnUntraced(function* (
  adapter: AdapterReport,
  choices: Remembered["choices"],
) {
  const remembered: Remembered = { format: FORMAT, adapter, choices };
  yield* Effect.promise(() => Deno.mkdir(FOLDER, { recursive: true }));
  yield* writeWholeFile(tunedFile(adapter), [
    new TextEncoder().encode(`${JSON.stringify(remembered, null, 2)}\n`),
  ]);
});

/** Programs take what was found for their adapter. */
export const layerTuned: Layer.Layer<never> = Layer.sync(TunedChoices, () => {
  const known = new Map<AdapterReport, Remembered["choices"]>();
  return (adapter) => {
    const choices = known.get(adapter) ?? readTuned(adapter);
    known.set(adapter, choices);
    return (work) => choices[work]?.chosen;
  };
});
