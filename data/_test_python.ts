/** Python, for tests against the programs that our files are for. */
import { shell } from "./_test_kit.ts";

/** Runs a script with arguments, and gives back what it prints, as JSON. */
export type Python = (script: string, ...args: readonly string[]) => Promise<unknown>;

/** A test that needs a Python with this package; where there is none, it is ignored and says so in its name. */
export const pythonTest = (name: string, needed: string, test: (python: Python) => void | Promise<void>) => {
  const program = findPython(needed);
  const missing = ` (skipped: no Python here has the package ${needed})`;
  Deno.test({
    name: program === undefined ? name + missing : name,
    ignore: program === undefined,
    fn: () => test(runWith(program!)),
  });
};

const findPython = (needed: string) =>
  ["python3", "/usr/bin/python3"].find((program) => {
    const script = `import importlib.util, sys; sys.exit(importlib.util.find_spec("${needed}") is None)`;
    return start(program, script, []).outputSync().success;
  });

const runWith = (program: string): Python => async (script, ...args) => {
  const { success, stdout, stderr } = await start(program, script, args).output();
  if (!success) throw new Error(`${program}: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(new TextDecoder().decode(stdout));
};

const start = (program: string, script: string, args: readonly string[]) =>
  shell('exec "$0" -W ignore -c "$@"', [program, script, ...args]);
