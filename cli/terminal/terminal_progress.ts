/**
 * The progress of a run on a terminal: one live line below all messages, or plain lines where the output is no terminal.
 */
import { Effect, Layer, Logger } from "effect";
import { printableText } from "../../data/files/printable.ts";
import {
  duration,
  isPrinted,
  lossScaleText,
  Progress,
  type RunPlan,
  secondsLeft,
  stepLine,
  type StepReport,
} from "../../pipeline/run/progress.ts";
import { CLEAR_LINE, REDRAW_MS } from "./progress_line.ts";
import { voice } from "./voice.ts";

/** Where output goes: standard output and error of this process, except in tests. */
export interface Screen {
  readonly columns: () => number | null; // null: it is no terminal
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  readonly now: () => number; // milliseconds
  /** Speaks before the first step, where nothing is written. */
  readonly voice: Pick<typeof voice, "doing" | "heard">;
}

/** Shows progress, and log messages as plain sentences, until the scope of the layer ends. */
export const layerReport = (screen: Screen = thisProcess): Layer.Layer<never> =>
  Layer.unwrap(Effect.gen(function* () {
    let plan: RunPlan | null = null;
    let line = ""; // as it is drawn now
    let drawnAt = -Infinity;

    const clear = () => {
      if (line !== "") screen.out(CLEAR_LINE);
    };
    const logger = Logger.make(({ logLevel, message }) => {
      const words = printableText([message].flat().map(String).join(" "));
      clear();
      screen.voice.heard();
      screen.err(logLevel === "Info" ? `${words}\n` : `${logLevel}: ${words}\n`);
      screen.out(line);
    });
    const step = (report: StepReport) =>
      Effect.sync(() => {
        screen.voice.doing("");
        if (plan === null) return;
        const columns = screen.columns();
        if (columns === null) {
          if (isPrinted(report.step, plan)) screen.out(`${stepLine(report, plan)}\n`);
          return;
        }
        const isLast = report.step + 1 === plan.lastStep;
        if (screen.now() - drawnAt < REDRAW_MS && !isLast) return;
        drawnAt = screen.now();
        clear();
        line = liveLine(report, plan, columns - 1);
        screen.out(line);
      });
    yield* Effect.addFinalizer(() => Effect.sync(() => line === "" || screen.out("\n")));

    const preparing = (words: string) => Effect.sync(() => screen.voice.doing(words));
    const begin = (begun: RunPlan) => Effect.sync(() => void (plan = begun));
    return Layer.mergeAll(Layer.succeed(Progress, { begin, step, preparing }), Logger.layer([logger]));
  }));

/**
 * The progress of a rank. Rank 0 prints plain lines, since its output goes through the launcher; the others print nothing
 * and write to their logs alone. null: the process is no rank of several.
 */
export const rankReport = (rank: number | null): Layer.Layer<never> =>
  rank === null
    ? layerReport()
    : rank === 0
    ? layerReport({ ...thisProcess, columns: () => null })
    : Logger.layer([]);

/** The line of a step in at most `columns` columns; leaves out the least important parts first. */
export const liveLine = (report: StepReport, plan: RunPlan, columns: number): string => {
  const { step, epoch, metrics, imagesPerSecond } = report;
  const { loss, loss_group, loss_slot, lr } = metrics;
  const done = step + 1;
  const parts = [
    { text: bar(done / plan.lastStep, 20), rank: 3 },
    { text: `epoch ${epoch}/${Math.ceil(plan.lastStep / plan.stepsPerEpoch)}`, rank: 2 },
    { text: `step ${done}/${plan.lastStep}`, rank: 0 },
    { text: `loss ${loss.toFixed(3)}`, rank: 0 },
    ...loss_group === undefined || loss_slot === undefined
      ? []
      : [{ text: `= group ${loss_group.toFixed(3)} + slot ${loss_slot.toFixed(3)}`, rank: 5 }],
    { text: `lr ${lr.toPrecision(3)}`, rank: 4 },
    ...lossScaleText(metrics).map((text) => ({ text, rank: 4 })),
    { text: `${imagesPerSecond.toPrecision(3)} images/s`, rank: 2 },
    { text: `${(plan.deviceBytes / 2 ** 30).toFixed(2)} GiB`, rank: 6 },
    { text: `${duration(secondsLeft(step, imagesPerSecond, plan))} left`, rank: 1 },
  ];
  const upTo = (rank: number) => parts.filter((part) => part.rank <= rank).map(({ text }) => text).join("  ");
  for (let rank = 6; rank > 0; rank--) if (upTo(rank).length <= columns) return upTo(rank);
  return upTo(0).slice(0, columns);
};

const bar = (share: number, width: number): string => {
  const eighths = Math.round(Math.min(share, 1) * width * 8);
  const full = "█".repeat(Math.floor(eighths / 8));
  const part = eighths % 8 === 0 ? "" : "▏▎▍▌▋▊▉"[eighths % 8 - 1];
  return `▕${(full + part).padEnd(width)}▏`;
};

/** Writes what can be written: who reads the output may be gone, or the disk full. The run goes on, and log.txt has it all. */
const write = (stream: typeof Deno.stdout | typeof Deno.stderr) => (text: string) => {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
  } catch {
    // It is lost here.
  }
};

const thisProcess: Screen = {
  columns: () => Deno.stdout.isTerminal() ? Deno.consoleSize().columns || 80 : null,
  out: write(Deno.stdout),
  err: write(Deno.stderr),
  now: () => performance.now(),
  voice,
};
