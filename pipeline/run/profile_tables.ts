/** The tables of a profile: the run's thread, the device's stages, and the ops of a step. */
import { bytesOf } from "../../ops/graph/kernel.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";
import type { TimedKernel } from "../../ops/runtime/program.ts";
import type { Phase, Seconds } from "./phase_timer.ts";
import { table } from "./table.ts";

/** The phases of the run's thread as text. */
export const PHASE_WORDS: Readonly<Record<Phase, string>> = {
  decode: "wait for pictures",
  submit: "submit",
  device: "wait for the device",
  sync: "wait for other ranks",
  checkpoint: "checkpoint",
  validate: "validation",
  report: "report",
};

/** An op and the shapes that tell its amount of work: "conv2d [16, 56, 56, 64] [3, 3, 64, 64]". */
export const opText = ({ source, shape }: Tensor): string => {
  if (source.kind !== "op") return source.kind;
  const { op, inputs } = source;
  const shapes = op.flops === undefined ? [shape] : inputs.slice(0, 2).map((x) => x.shape);
  return `${op.name} ${shapes.map((sizes) => `[${sizes.join(", ")}]`).join(" ")}`;
};

/** Rows of the table of ops. */
const MOST_ROWS = 25;

/** Timed kernels of several runs of one program. */
type Runs = readonly (readonly TimedKernel[])[];

/**
 * The tables of profiled steps, means over them: `runs` are the kernels of every step, none where the adapter cannot
 * time them, and `host` the seconds of every step by phase.
 */
export const profileTables = (runs: Runs, host: readonly Seconds["host"][]): string => {
  const spent = (Object.keys(PHASE_WORDS) as Phase[]).map((phase) => ({
    what: PHASE_WORDS[phase],
    milliseconds: 1000 * host.reduce((sum, seconds) => sum + seconds[phase], 0) / host.length,
  }));
  const step = spent.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const thread = table([
    ["main thread", "ms a step", "of step"],
    ...spent.filter(({ milliseconds }) => milliseconds > 0)
      .map(({ what, milliseconds }) => [what, milliseconds.toFixed(1), share(milliseconds, step)]),
    ["step", step.toFixed(1), "100.0 %"],
  ]);
  if (runs.length === 0) return thread;

  const device = duration(runs.flat()) / runs.length;
  const line: Line = (what, count, milliseconds) => [
    what,
    String(count),
    milliseconds.toFixed(2),
    share(milliseconds, device),
    share(milliseconds, step),
  ];
  return [thread, stageTable(runs, line), opTable(runs, line)].join("\n\n");
};

/** The cells of a row: what took the time, how many of it there are in a step, and its milliseconds a step. */
type Line = (what: string, count: number, milliseconds: number) => string[];
const COLUMNS = ["ms a step", "of device", "of step"];

const share = (part: number, whole: number) => `${(100 * part / whole).toFixed(1)} %`;

const duration = (spans: readonly TimedKernel[]) =>
  spans.reduce((sum, { begin, end }) => sum + end - begin, 0);

const stageTable = (runs: Runs, line: Line): string =>
  table([
    ["device", "kernels", ...COLUMNS],
    ...[...Map.groupBy(runs.flat(), ({ stage }) => stage)].map(([stage, kernels]) =>
      line(stage, kernels.length / runs.length, duration(kernels) / runs.length)
    ),
    line("all stages", runs[0].length, duration(runs.flat()) / runs.length),
  ]);

const opTable = (runs: Runs, line: Line): string => {
  const rows = rowsOf(runs);
  const [most, others] = [rows.slice(0, MOST_ROWS), rows.slice(MOST_ROWS)];
  const sum = (what: "calls" | "milliseconds") => others.reduce((total, row) => total + row[what], 0);
  const widest = Math.max(...rows.map(({ stage }) => stage.length), "stage".length);
  return table([
    [`${"stage".padEnd(widest)}  op`, "calls", ...COLUMNS, "rate"],
    ...most.map(({ stage, op, calls, milliseconds, rate }) => [
      ...line(`${stage.padEnd(widest)}  ${op}`, calls, milliseconds),
      rate,
    ]),
    ...others.length === 0
      ? []
      : [[...line(`${" ".repeat(widest)}  ${others.length} others`, sum("calls"), sum("milliseconds")), ""]],
  ]);
};

/** Ops of a step of the same name, shapes and stage: means over the runs. */
interface Row {
  readonly stage: string;
  readonly op: string;
  readonly calls: number;
  readonly milliseconds: number;
  readonly rate: string;
}

/** The ops of a step in rows, the longest first. */
const rowsOf = (runs: Runs): readonly Row[] => {
  const alike = Map.groupBy(runs.flat(), ({ stage, makes }) => `${stage} ${opText(makes)}`);
  return [...alike.values()].map((kernels): Row => {
    const calls = [...new Set(kernels.map(({ makes }) => makes))];
    return {
      stage: kernels[0].stage,
      op: opText(calls[0]),
      calls: calls.length,
      milliseconds: duration(kernels) / runs.length,
      rate: rateOf(kernels, calls, runs.length),
    };
  }).sort((a, b) => b.milliseconds - a.milliseconds);
};

/**
 * The rate of an op: arithmetic of matrix products and convolutions, memory bound to the kernels of others. Empty where
 * only the device knows how much there is to do.
 */
const rateOf = (kernels: readonly TimedKernel[], calls: readonly Tensor[], runs: number): string => {
  if (kernels.some(({ kernel }) => "indirect" in kernel.workgroups)) return "";
  const perSecond = (amount: number) => (amount / duration(kernels) * 1e3 / 1e9).toPrecision(3);
  const flops = calls.reduce(
    (sum, { source, shape }) =>
      source.kind === "op" && source.op.flops !== undefined
        ? sum + source.op.flops(source.inputs, shape)
        : sum,
    0,
  );
  if (flops > 0) return `${perSecond(flops * runs)} GFLOP/s`;
  const bytes = kernels.reduce(
    (sum, { kernel }) => kernel.bindings.reduce((sum, { operand }) => sum + bytesOf(operand), sum),
    0,
  );
  return `${perSecond(bytes)} GB/s`;
};
