/** Filters what `mpirun` prints: its report of how a job ended becomes one sentence, all else passes. */

export interface LauncherReport {
  /** The lines to show after the launcher or a rank has printed this one. */
  readonly lines: (line: string) => readonly string[];
  /** A sentence on which rank made the job fail; null where a rank has already printed the reason. */
  readonly culprit: () => string | null;
}

export const launcherReport = (): LauncherReport => {
  const shown = new Set<string>();
  let block: string[] | null = null; // the lines since an opening rule
  let culprit: string | null = null;

  const judge = (text: string, whole: readonly string[]): readonly string[] => {
    const [, rank, node, signal] =
      text.match(/process rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+ \(.*?\))/) ?? [];
    const [, ended, status] = text.match(/Process name: \[.*,(\d+)\] Exit code: (\d+)/) ?? [];
    if (rank !== undefined) culprit ??= `Rank ${rank} on ${node} was ended by signal ${signal}, ${WITH_IT}`;
    else if (ended !== undefined) culprit ??= `Rank ${ended} ended with status ${status}, ${WITH_IT}`;
    else if (!/Primary job +terminated normally/.test(text)) return whole;
    return [];
  };

  const lines = (line: string): readonly string[] => {
    if (/^-{60,}$/.test(line)) { // Open MPI puts its reports between two rules
      if (block === null) {
        block = [line];
        return [];
      }
      const whole = [...block, line];
      block = null;
      return judge(whole.slice(1, -1).join(" ").replace(/\s+/g, " "), whole);
    }
    if (block !== null) {
      block.push(line);
      return [];
    }
    const [, reason] = line.match(/^YOUR APPLICATION TERMINATED WITH THE EXIT STRING: (.*?) *\(/) ?? [];
    if (reason !== undefined) culprit ??= `A rank was ended (${reason}), ${WITH_IT}`;
    if (reason !== undefined || MPICH.test(line) || /^mpirun: Forwarding signal/.test(line)) return [];

    // Several ranks often fail for the same reason: show it once.
    const complaint = line.match(/^slotcon: (?:rank \d+: )?(.+)$/)?.[1];
    if (complaint !== undefined && shown.has(complaint)) return [];
    if (complaint !== undefined) shown.add(complaint);
    return [line];
  };
  const nobody = () => shown.size > 0 ? null : "A rank was ended, the launcher does not say which";
  return { lines, culprit: () => culprit ?? nobody() };
};

const WITH_IT = "and the others were ended with it";

/** The other lines of MPICH's report. */
const MPICH =
  /^={40,}$|^= +(BAD TERMINATION|(RANK \d+ )?PID|EXIT CODE|KILLED BY|CLEANING UP|YOU CAN IGNORE)|^This typically refers to a problem|^Please see the FAQ page/;
