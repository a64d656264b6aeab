/** Where the time of a run goes, as its own thread sees it. */

/**
 * What the run's thread does: it waits for batches (`decode`), submits work to the device (`submit`), waits for the
 * device (`device`) and for other ranks (`sync`), copies and saves the state (`checkpoint`), scores it on validation images
 * (`validate`), writes and shows numbers (`report`).
 */
export type Phase = "decode" | "submit" | "device" | "sync" | "checkpoint" | "validate" | "report";

/** Seconds since the previous report. */
export interface Seconds {
  /** Of the run's thread, which is in one phase at a time. */
  readonly host: Readonly<Record<Phase, number>>;
  /** Of the device, by stage of the step, meanwhile; null where the adapter lacks timestamps. */
  readonly device: Readonly<Record<string, number>> | null;
}

/** No time at all. */
export const NO_TIME: Seconds = {
  host: { decode: 0, submit: 0, device: 0, sync: 0, checkpoint: 0, validate: 0, report: 0 },
  device: null,
};

/** Charges every moment to a phase. */
export interface PhaseTimer {
  /**
   * Charges the time since the last mark to `phase`, except for the seconds in `elsewhere`, which belong to other
   * phases.
   */
  readonly mark: (phase: Phase, elsewhere?: Partial<Record<Phase, number>>) => void;
  /** The seconds of every phase since the last call. */
  readonly take: () => Seconds["host"];
}

/** A timer that starts now. It tells `note` of every mark: the phase, its begin and its end in milliseconds. */
export const phaseTimer = (
  note: (phase: Phase, begin: number, end: number) => void = () => {},
  now: () => number = () => performance.now(),
): PhaseTimer => {
  let host = { ...NO_TIME.host };
  let last = now();
  return {
    mark: (phase, elsewhere = {}) => {
      const time = now();
      host[phase] += (time - last) / 1000;
      note(phase, last, time);
      last = time;
      for (const [other, seconds] of Object.entries(elsewhere) as [Phase, number][]) {
        host[other] += seconds;
        host[phase] -= seconds;
      }
    },
    take: () => {
      const taken = host;
      host = { ...NO_TIME.host };
      return taken;
    },
  };
};

/** The sum of several times, rounded to microseconds; of the device only if all of them have its stages. */
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
