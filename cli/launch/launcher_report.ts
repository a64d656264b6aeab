/** What `mpirun` says of a job, boiled down: its own report of the end becomes one sentence, all else is handed on. */

export interface LauncherReport {
  /** What to show now that the launcher or a rank has said this line. */
  readonly lines: (line: string) => readonly string[];
  /** Which rank ended a job that ended badly, in a sentence; null if there is nothing to add to what a rank has said. */
  readonly culprit: () => string | null;
}

export const launcherReport = (): LauncherReport => {
  const shown = new Set<string>();
  let block: string[] | null = null; // the lines between two rules
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
    if (/^-{60,}$/.test(line)) { // Open MPI's rule
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

    // Ranks that fail alike say so once.
    const complaint = line.match(/^slotcon: (?:rank \d+: )?(.+)$/)?.[1];
    if (complaint !== undefined && shown.has(complaint)) return [];
    if (complaint !== undefined) shown.add(complaint);
    return [line];
  };
  const nobody = () => shown.size > 0 ? null : "A rank was ended, the launcher does not say which";
  return { lines, culprit: () => culprit ?? nobody() };
};

const WITH_IT = "and the others were ended with it";

/** The rest of MPICH's report. */
const MPICH =
  /^={40,}$|^= +(BAD TERMINATION|(RANK \d+ )?PID|EXIT CODE|KILLED BY|CLEANING UP|YOU CAN IGNORE)|^This typically refers to a problem|^Please see the FAQ page/;
