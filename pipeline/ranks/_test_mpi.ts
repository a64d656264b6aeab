/** Real ranks, for tests: processes that `mpirun` starts. */
import { endingOf, shell } from "../../data/_test_kit.ts";
import { launcherSettings } from "./launch.ts";

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
  const options = { env: { ...launcherSettings, ...env } };
  return endingOf(
    await shell('exec mpirun -n "$0" "$@"', [String(ranks), program, ...args], options).output(),
  );
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
