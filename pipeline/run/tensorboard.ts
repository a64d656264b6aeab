/** A run's metrics and images as event files for TensorBoard, in a folder of their own. */
import { join } from "node:path";
import { type AppendFile, openAppendFile } from "../../data/files/append_file.ts";
import { type EncodedPicture, eventFile, type SummaryValue } from "../../data/formats/tfevents.ts";
import { flagName } from "./option_name.ts";

/** An event file that is open. */
export interface TensorBoard extends Pick<AppendFile, "waits" | "sync">, Disposable {
  /** Adds the numbers of a step under `train/` and their names; TensorBoard shows what shares a prefix on one page. */
  readonly numbers: (step: number, numbers: Readonly<Record<string, number>>) => void;
  /**
   * Adds images of the state after `done` steps, by name, to the last of these steps. Drops them while the disk is
   * full.
   */
  readonly images: (done: number, images: ReadonlyMap<string, EncodedPicture>) => void;
}

/**
 * Opens a new event file in `folder` and writes the run's configuration into it. The file takes back what older files
 * in the folder say of `firstStep` and later steps. Throws the system's errors, as do the functions.
 */
export const openTensorBoard = (
  folder: string,
  config: Readonly<Record<string, unknown>>,
  firstStep: number,
): TensorBoard => {
  Deno.mkdirSync(folder, { recursive: true });
  const file = openAppendFile(join(folder, nextName(folder)));
  const events = eventFile();
  const now = () => Date.now() / 1000;
  const say = (step: number, values: readonly SummaryValue[]) =>
    file.add(events.summary(now(), step, values));

  file.add(events.start(now(), firstStep));
  say(firstStep, [{ tag: "config", markdown: asTable(config) }]);
  return {
    numbers: (step, numbers) =>
      say(step, Object.entries(numbers).map(([name, scalar]) => ({ tag: `train/${name}`, scalar }))),
    images: (done, images) => {
      if (!file.waits()) {
        say(Math.max(0, done - 1), Array.from(images, ([tag, picture]) => ({ tag, picture })));
      }
    },
    waits: file.waits,
    sync: file.sync,
    [Symbol.dispose]: file[Symbol.dispose],
  };
};

/** A name after those of all files in the folder, whatever the clock says: TensorBoard reads files in order of name. */
const nextName = (folder: string): string => {
  const seconds = Array.from(
    Deno.readDirSync(folder),
    ({ name }) => Number(name.match(/^events\.out\.tfevents\.(\d+)/)?.[1] ?? 0),
  );
  const next = Math.max(Math.floor(Date.now() / 1000), ...seconds.map((second) => second + 1));
  return `events.out.tfevents.${String(next).padStart(10, "0")}.slotcon`;
};

const asTable = (config: Readonly<Record<string, unknown>>): string =>
  [
    "| option | value |",
    "| --- | --- |",
    ...Object.entries(config).map(([name, value]) =>
      `| ${flagName(name)} | ${String(value ?? "").replace(/[\\|]/g, "\\$&")} |`
    ),
  ].join("\n");
