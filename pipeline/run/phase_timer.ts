/** Where the time of a run goes, as its own thread sees it. */

/**
 * What the run's thread does: waits for pictures (`decode`), hands work to the device (`submit`), waits for it (`device`)
 * and for other ranks (`sync`), copies and saves the state (`checkpoint`), writes and shows numbers (`report`).
 */
export type Phase = "decode" | "submit" | "device" | "sync" | "checkpoint" | "report";

/** Seconds since the time before: of the thread, which do one thing at a time, and of the device's stages meanwhile. */
export interface Seconds {
  readonly host: Readonly<Record<Phase, number>>;
  readonly device: Readonly<Record<string, number>> | null; // null where the adapter cannot time them
}

/** No time at all. */
export const NO_TIME: Seconds = {
  host: { decode: 0, submit: 0, device: 0, sync: 0, checkpoint: 0, report: 0 },
  device: null,
};

/**
 * An account for every moment: `lap` charges all time since the last call, and tells `note` from when to when, in
 * milliseconds; `take` gives the sums and starts again.
 */
export const phaseTimer = (
  note: (account: Phase, begin: number, end: number) => void = () => {},
  now: () => number = () => performance.now(),
) => {
  let host = { ...NO_TIME.host };
  let last = now();
  return {
    /** `elsewhere` are seconds of this lap that belong to other accounts. */
    lap: (account: Phase, elsewhere: Partial<Record<Phase, number>> = {}) => {
      const time = now();
      host[account] += (time - last) / 1000;
      note(account, last, time);
      last = time;
      for (const [other, seconds] of Object.entries(elsewhere) as [Phase, number][]) {
        host[other] += seconds;
        host[account] -= seconds;
      }
    },
    take: (): Seconds["host"] => {
      const taken = host;
      host = { ...NO_TIME.host };
      return taken;
    },
  };
};

/** The sum of several times. */
export const added = (all: readonly Seconds[]): Seconds => {
  const sum = (parts: readonly Readonly<Record<string, number>>[]) => {
    const total: Record<string, number> = {};
    for (const part of parts) {
      for (const [name, seconds] of Object.entries(part)) total[name] = (total[name] ?? 0) + seconds;
    }
    return Object.fromEntries(Object.entries(total).map(([name, value]) => [name, Number(value.toFixed(6))]));
  };
  const device = all.map(({ device }) => device).filter((times) => times !== null);
  return {
    host: sum(all.map(({ host }) => host)) as Seconds["host"],
    device: device.length === all.length ? sum(device) : null,
  };
};
