/** A run's metrics as event files for TensorBoard, in a folder of their own. */
import { join } from "node:path";
import { type AppendFile, openAppendFile } from "../../data/files/append_file.ts";
import { type EncodedPicture, eventFile, type SummaryValue } from "../../data/formats/tfevents.ts";
import type { Config } from "../pretrain/config.ts";
import { flagName } from "./option_name.ts";

export interface TensorBoard extends Pick<AppendFile, "waits" | "sync">, Disposable {
  /** Adds the numbers of a step, as `train/` and their names: what has a group in common is shown on one page. */
  readonly numbers: (step: number, numbers: Readonly<Record<string, number>>) => void;
  /**
   * Adds pictures of the state when so many steps are done, under their names, to the last of these steps. While the disk
   * is full they are left out.
   */
  readonly pictures: (done: number, pictures: ReadonlyMap<string, EncodedPicture>) => void;
}

/**
 * Opens a new event file in `folder`, and says in it how the run is configured. It takes back what older files in the
 * folder say of `firstStep` and later ones. Throws what the system says, as do the functions.
 */
export const openTensorBoard = (folder: string, config: Config, firstStep: number): TensorBoard => {
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
    pictures: (done, pictures) => {
      if (!file.waits()) {
        say(Math.max(0, done - 1), Array.from(pictures, ([tag, picture]) => ({ tag, picture })));
      }
    },
    waits: file.waits,
    sync: file.sync,
    [Symbol.dispose]: file[Symbol.dispose],
  };
};

/** A name behind those of all files in the folder, whatever the clock says: files are read in the order of their names. */
const nextName = (folder: string): string => {
  const seconds = Array.from(
    Deno.readDirSync(folder),
    ({ name }) => Number(name.match(/^events\.out\.tfevents\.(\d+)/)?.[1] ?? 0),
  );
  const next = Math.max(Math.floor(Date.now() / 1000), ...seconds.map((second) => second + 1));
  return `events.out.tfevents.${String(next).padStart(10, "0")}.slotcon`;
};

const asTable = (config: Config): string =>
  [
    "| option | value |",
    "| --- | --- |",
    ...Object.entries(config).map(([name, value]) =>
      `| ${flagName(name)} | ${String(value ?? "").replace(/[\\|]/g, "\\$&")} |`
    ),
  ].join("\n");
