import { type Layer, Logger } from "effect";
import type { ProgressLine } from "./progress_line.ts";

/** Shows what is logged as sentences on standard error, above a line of progress. */
export const layerWarnings = (line: ProgressLine): Layer.Layer<never> =>
  Logger.layer([
    Logger.make(({ message }) => line.say(`slotcon: ${[message].flat().map(String).join(" ")}`)),
  ]);
