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
  readonly ph: "M" | "X"; // metadata, or a span
  readonly pid: number;
  readonly tid: number;
  readonly name: string;
  readonly ts?: number; // microseconds
  readonly dur?: number;
  readonly args: Readonly<Record<string, string | number>>;
}

/** A trace of one process as a file's content; its tracks appear from top to bottom as they are given here. */
export const traceFile = (process: string, tracks: readonly TraceTrack[]): string => {
  const metadata = (tid: number, name: string, args: TraceEvent["args"]): TraceEvent => (
    { ph: "M", pid: 1, tid, name, args }
  );
  const events = [
    metadata(0, "process_name", { name: process }),
    ...tracks.flatMap(({ name, spans }, i): TraceEvent[] => [
      metadata(i + 1, "thread_name", { name }),
      metadata(i + 1, "thread_sort_index", { sort_index: i }),
      ...spans.map(({ name, begin, end, details = {} }) => {
        // Whole nanoseconds, lest rounding lets one span reach out of another.
        const [from, to] = [begin, end].map((milliseconds) => Math.round(milliseconds * 1e6));
        return { ph: "X", pid: 1, tid: i + 1, name, ts: from / 1e3, dur: (to - from) / 1e3, args: details };
      }).sort((a, b) => a.ts - b.ts || b.dur - a.dur) as TraceEvent[], // what encloses others comes first
    ]),
  ];
  return `{"displayTimeUnit":"ms","traceEvents":[\n${
    events.map((event) => JSON.stringify(event)).join(",\n")
  }\n]}\n`;
};
