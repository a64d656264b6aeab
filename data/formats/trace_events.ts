/**
 * Traces as Perfetto, chrome://tracing and speedscope open them: JSON of Chrome's trace events.
 *
 * Source: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 */

/** Something that took its time. Moments are milliseconds since any one moment, the same for all. */
export interface TraceSpan {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
  readonly details?: Readonly<Record<string, string | number>>;
}

/** What one thread or device did. Spans lie one within the other or one after the other, in any order. */
export interface TraceTrack {
  readonly name: string;
  readonly spans: readonly TraceSpan[];
}

interface TraceEvent {
  readonly ph: "M" | "B" | "E"; // metadata, the begin or the end of a span
  readonly pid: number;
  readonly tid: number;
  readonly name: string;
  readonly ts?: number; // microseconds
  readonly args?: Readonly<Record<string, string | number>>;
}

/** A trace of one process as a file's content; its tracks appear from top to bottom as they are given here. */
export const traceFile = (process: string, tracks: readonly TraceTrack[]): string => {
  const metadata = (tid: number, name: string, args: TraceEvent["args"]): TraceEvent => (
    { ph: "M", pid: 1, tid, name, args }
  );
  const events = [
    metadata(0, "process_name", { name: process }),
    ...tracks.flatMap(({ name, spans }, i) => [
      metadata(i + 1, "thread_name", { name }),
      metadata(i + 1, "thread_sort_index", { sort_index: i }),
      ...inOrder(spans).map((event): TraceEvent => ({ ...event, pid: 1, tid: i + 1 })),
    ]),
  ];
  return `{"displayTimeUnit":"ms","traceEvents":[\n${
    events.map((event) => JSON.stringify(event)).join(",\n")
  }\n]}\n`;
};

/**
 * Begins and ends in the order of time, and where times are the same in that of nesting. Not complete events with a
 * duration: readers that add it to the begin get ends that rounding has moved past the next begin.
 */
const inOrder = (spans: readonly TraceSpan[]): Omit<TraceEvent, "pid" | "tid">[] => {
  const microseconds = (milliseconds: number) => Math.round(milliseconds * 1e6) / 1e3;
  const events: Omit<TraceEvent, "pid" | "tid">[] = [];
  const open: TraceSpan[] = [];
  const add = (ph: "B" | "E", { name, details }: TraceSpan, time: number) =>
    events.push({ ph, name, ts: microseconds(time), args: details }); // which pairs them for some readers
  const close = (span: TraceSpan) => add("E", span, span.end);
  for (const span of [...spans].sort((a, b) => a.begin - b.begin || b.end - a.end)) {
    while (open.length > 0 && open[open.length - 1].end <= span.begin) close(open.pop()!);
    open.push(span);
    add("B", span, span.begin);
  }
  while (open.length > 0) close(open.pop()!);
  return events;
};
