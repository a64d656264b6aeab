import { join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import type { Config } from "../../pipeline/pretrain/config.ts";
import { lineChart } from "../pages/line_chart.ts";
import { bar, html, pageOf, pageTable } from "../pages/page.ts";

/** The result of a demo. */
export interface DemoResult {
  /** How well each grouping matches what was drawn: scores from 0 to 1 under these titles. */
  readonly titles: readonly string[];
  readonly scores: readonly { readonly name: string; readonly values: readonly number[] }[];
  /** A PNG of scenes, their slots before and after training, and their true classes. */
  readonly sheet: Uint8Array;
}

/**
 * Writes the page of a demo, `report.html` in the run's folder: scores, slots and curves in one file. Returns its path, and
 * the mean loss of the first ten steps and of the last ten, in words.
 */
export const demoReport = Effect.fn("demoReport")(function* (
  { outputDir, arch, width, numPrototypes, seed }: Config,
  { titles, scores, sheet }: DemoResult,
) {
  const file = join(outputDir, "report.html");
  const lines = (yield* Effect.promise(() => Deno.readTextFile(join(outputDir, "metrics.jsonl")))).trim()
    .split("\n")
    .map((line): Record<string, number> => JSON.parse(line));
  const curve = (key: string, name: string) => ({ name, values: lines.map((line) => line[key]) });
  const loss = [lines.slice(0, 10), lines.slice(-10)].map((some) => mean(some).toFixed(2)).join(" to ");
  const { width: pixels = 0 } = yield* Effect.promise(() => sharp(sheet).metadata());
  const picture = `data:image/png;base64,${sheet.toBase64()}`;
  const page = pageOf({
    title: "What the slots have learnt",
    facts: [
      ["network", `${arch}, ${width} channels behind the stem, ${numPrototypes} prototypes`],
      ["training", `${lines.length} steps without any label, seed ${seed}`],
      ["loss", loss],
    ],
    body: [
      html`<h2>Slots on scenes that were not trained on</h2>`,
      html`<p>From the top: scenes, slots before training, slots after, the truth.</p>`,
      html`
        <div
          class="wide"><img src="${picture}" alt="Scenes and their slots" style="width: ${pixels}px; max-width: 100%"></div>
      `,
      html`<h2>How well they match what was drawn</h2>`,
      pageTable(
        ["", ...titles],
        scores.map(({ name, values }) => [name, ...values.map((value) => bar(Math.max(0, value)))]),
      ),
      html`<p>1 is perfect. Colours alone do not tell what was drawn: k-means on colour and place shows how far they go.</p>`,
      html`<h2>Curves</h2>`,
      html`<div class="gallery">${[
        lineChart("Loss", [curve("loss", "loss")]),
        lineChart("Its parts", [curve("loss_group", "grouping"), curve("loss_slot", "slot contrast")]),
        lineChart("Prototypes in use", [curve("live_prototypes", "in a batch")]),
        lineChart("Learning rate", [curve("lr", "learning rate")]),
      ]}</div>`,
    ],
  });
  yield* writeWholeFile(file, [new TextEncoder().encode(page)]);
  return { file, loss };
});

const mean = (lines: readonly Record<string, number>[]): number =>
  lines.reduce((sum, { loss }) => sum + loss, 0) / lines.length;
