/** The kernels that `slotcon tune` has found fastest, stored for each adapter in the project's cache. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect, Layer } from "effect";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import { TunedChoices } from "../../ops/compiler/kernel_selection.ts";
import type { AdapterReport } from "../../ops/graph/lowering.ts";
import type { Tuned } from "../../ops/runtime/autotune.ts";

const FOLDER = join(import.meta.dirname!, "../../.cache/kernels");
const FORMAT = "slotcon-kernels/1";

/** The fastest variant for each kind of work, as the compiler names it (ops/compiler/kernel_selection.ts). */
export type FastestKernels = Readonly<Record<string, Pick<Tuned, "chosen" | "milliseconds">>>;

/** The contents of a file. */
interface Stored {
  readonly format: typeof FORMAT;
  readonly adapter: AdapterReport;
  readonly choices: FastestKernels;
}

/** The path of an adapter's file. An adapter with other limits, or another driver, has another file. */
export const tunedFile = (adapter: AdapterReport): string => {
  const name = adapter.description.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-").replaceAll(/^-|-$/g, "");
  const hash = createHash("sha256").update(JSON.stringify(adapter)).digest("hex").slice(0, 8);
  return join(FOLDER, `${name}-${hash}.json`);
};

/**
 * The kernels stored for an adapter; none where there is no file. Warns of a file that `slotcon tune` did not write.
 */
export const readTuned = (adapter: AdapterReport): FastestKernels => {
  const file = tunedFile(adapter);
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch {
    return {};
  }
  try {
    const { format, choices }: Stored = JSON.parse(text);
    if (format === FORMAT && Object.values(choices).every(({ chosen }) => typeof chosen === "string")) {
      return choices;
    }
  } catch {
    // the warning is below
  }
  console.error(
    `slotcon: ${file} is not a file of tuned kernels: it is not used, and slotcon tune writes it anew`,
  );
  return {};
};

/** Stores the kernels of an adapter. Fails where the file cannot be written. */
export const writeTuned: (
  adapter: AdapterReport,
  choices: FastestKernels,
) => Effect.Effect<void, Error> = Effect.fnUntraced(function* (adapter, choices) {
  const stored: Stored = { format: FORMAT, adapter, choices };
  yield* Effect.tryPromise({
    try: () => Deno.mkdir(FOLDER, { recursive: true }),
    catch: (error) => error as Error,
  });
  yield* writeWholeFile(tunedFile(adapter), [
    new TextEncoder().encode(`${JSON.stringify(stored, null, 2)}\n`),
  ]);
});

/** Has programs use the kernels that are stored for their adapter. */
export const layerTuned: Layer.Layer<never> = Layer.sync(TunedChoices, () => {
  const known = new Map<AdapterReport, FastestKernels>();
  return (adapter) => {
    const choices = known.get(adapter) ?? readTuned(adapter);
    known.set(adapter, choices);
    return (work) => choices[work]?.chosen;
  };
});
