/** Real ranks, for tests: processes that `mpirun` starts. */
import { launcherSettings } from "./launch.ts";

// By way of a shell, which is one of the few programs that the tests may start.
const shell = (line: string, args: readonly string[] = []) =>
  new Deno.Command("sh", {
    args: ["-c", line, ...args],
    env: launcherSettings,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });

const missing = shell("mpirun --version").outputSync().success ? null : "there is no mpirun here";

/** A test that needs MPI; without it, it is ignored and says so in its name. */
export const mpiTest = (name: string, test: () => void | Promise<void>) =>
  Deno.test({
    name: missing === null ? name : `${name} (skipped: ${missing})`,
    ignore: missing !== null,
    fn: test,
  });

/** Starts a program as so many ranks. */
export const startRanks = (ranks: number, program: string, ...args: readonly string[]): Deno.ChildProcess =>
  shell('exec mpirun -n "$0" "$@"', [String(ranks), program, ...args]).spawn();

/** Runs a program as so many ranks, to its end. */
export const runRanks = async (ranks: number, program: string, ...args: readonly string[]) => {
  const { code, stdout, stderr } = await startRanks(ranks, program, ...args).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
};
