/** Real ranks, for tests: processes that `mpirun` starts. */
import { launcherSettings } from "./launch.ts";

// By way of a shell, which is one of the few programs that the tests may start.
const shell = (line: string, args: readonly string[] = [], env: Record<string, string> = {}) =>
  new Deno.Command("sh", {
    args: ["-c", line, ...args],
    env: { ...launcherSettings, ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });

const noMpi = shell("mpirun --version").outputSync().success ? null : "there is no mpirun here";

/** A test that needs MPI, and has no other reason `missing` to be left out; it then says so in its name. */
export const mpiTest = (name: string, test: () => void | Promise<void>, missing: string | null = null) => {
  const reason = noMpi ?? missing;
  Deno.test({
    name: reason === null ? name : `${name} (skipped: ${reason})`,
    ignore: reason !== null,
    fn: test,
  });
};

/** Runs a program as so many ranks, to its end. */
export const runRanks = async (
  ranks: number,
  [program, ...args]: readonly [string, ...string[]],
  env: Record<string, string> = {},
) => {
  const command = shell('exec mpirun -n "$0" "$@"', [String(ranks), program, ...args], env);
  const { code, stdout, stderr } = await command.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
};

/** Runs a script as so many ranks; each may print an object as JSON, with its `rank`. */
export const runScript = async (
  ranks: number,
  script: string,
  args: readonly string[],
  env: Record<string, string> = {},
) => {
  const deno = [Deno.execPath(), "run", "--quiet", "--cached-only", "-A", script, ...args] as const;
  const { code, out, err } = await runRanks(ranks, deno, env);
  const lines = out.split("\n").filter((line) => line.startsWith("{"));
  const found = lines.map((line) => JSON.parse(line)).sort((a, b) => a.rank - b.rank);
  return { code, err, found };
};
