/** Commands as real processes, started as a user starts them, and what they leave behind. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect } from "effect";
import { type Ending, endingOf, shell } from "../data/_test_kit.ts";
import { latestCheckpoint } from "../pipeline/run/checkpoint_file.ts";

/** The launcher. */
export const slotcon: string = join(import.meta.dirname!, "slotcon");

/** `slotcon ...args`, to be run in a folder. */
export const slotconCommand = (args: readonly string[], cwd?: string): Deno.Command =>
  shell('exec "$0" "$@"', [slotcon, ...args], { cwd });

/** Runs `slotcon ...args` in a folder, to its end. */
export const runSlotcon = async (cwd: string, ...args: readonly string[]): Promise<Ending> =>
  withoutVoice(endingOf(await slotconCommand(args, cwd).output()));

/** How a command ended, without what the voice (cli/terminal/voice.ts) says where the machine is slow. */
export const withoutVoice = ({ code, out, err }: Ending): Ending => ({
  code,
  out,
  err: err.replace(/^.* …\n/gm, ""),
});

/** The same without the white space at both ends of what it prints. */
export const runTrimmed = async (cwd: string, ...args: readonly string[]): Promise<Ending> => {
  const { code, out, err } = await runSlotcon(cwd, ...args);
  return { code, out: out.trim(), err: err.trim() };
};

/** The command line of a run of a tiny network on pictures of one's own. */
export const tinyRun = (pictures: string, output: string): readonly string[] => [
  ...["pretrain", "--dataset", "Folder", "--data-dir", pictures, "--output-dir", output],
  ..."--arch resnet18 --width 4 --output-stride 8 --dim-hidden 8 --dim-out 8 --num-prototypes 4".split(" "),
  ..."--image-size 32 --batch-size 4 --warmup-epoch 1 --num-workers 1".split(" "),
];

/** The same of so many steps, which saves after each and goes on from what it finds in its folder. */
export const savingRun = (pictures: string, output: string, steps: number): readonly string[] => [
  ...tinyRun(pictures, output),
  ...`--epochs 200 --auto-resume --save-steps 1 --keep 2 --steps ${steps}`.split(" "),
];

export const start = (pictures: string, output: string, steps: number, ...more: readonly string[]) =>
  slotconCommand([...savingRun(pictures, output, steps), ...more]).spawn();

/** Such a run, to its end. */
export const finish = async (...args: Parameters<typeof start>): Promise<void> => {
  const { code, err } = endingOf(await start(...args).output());
  assert.equal(code, 0, err);
};

/** A process of `slotcon` whose output is read up to what matches. */
export interface Started {
  /** Its process; that of Deno, which takes the launcher's place. */
  readonly pid: number;
  readonly found: RegExpMatchArray;
  /** Resolves when it has ended. */
  readonly ended: Promise<Deno.CommandStatus>;
  /** Ends it and waits. */
  readonly stop: () => Promise<void>;
}

/** Starts `slotcon ...args` and reads its output up to what matches. */
export const startUntil = async (args: readonly string[], wanted: RegExp): Promise<Started> => {
  const child = slotconCommand(args).spawn();
  const errors = new Response(child.stderr).text();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let seen = "";
  while (!wanted.test(seen)) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`slotcon ${args.join(" ")} ended after: ${seen}${await errors}`);
    seen += value;
  }
  const rest = (async () => {
    while (!(await reader.read()).done);
  })();
  const ended = Promise.all([child.status, rest, errors]).then(([status]) => status);
  const stop = async () => {
    try {
      child.kill("SIGTERM");
    } catch {
      // it has ended already
    }
    await ended;
  };
  return { pid: child.pid, found: seen.match(wanted)!, ended, stop };
};

export const sleep = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits until something holds; fails after a while. */
export const until = async (what: string, holds: () => boolean, seconds = 60): Promise<void> => {
  for (const deadline = Date.now() + 1000 * seconds; !holds(); await sleep(2)) {
    assert.ok(Date.now() < deadline, what);
  }
};

/** The name of a run's newest checkpoint, as it records it; "" where there is none. */
export const currentOf = (output: string): string => {
  try {
    return Deno.readTextFileSync(join(output, "checkpoints", "current"));
  } catch {
    return "";
  }
};

/** The state at the end of a run, as checksums, and the metrics of all steps without what depends on the clock. */
export const result = async (output: string, steps: number) => {
  const checkpoint = await Effect.runPromise(latestCheckpoint(output));
  assert.equal(checkpoint?.meta.step, steps);
  const checksum = ({ buffer, byteOffset, byteLength }: ArrayBufferView) =>
    createHash("sha256").update(new Uint8Array(buffer, byteOffset, byteLength)).digest("hex");
  const lines = Deno.readTextFileSync(join(output, "metrics.jsonl")).trim().split("\n");
  return {
    tensors: Object.fromEntries([...checkpoint.tensors].map(([name, { data }]) => [name, checksum(data)])),
    metrics: lines.map((line) => ({ ...JSON.parse(line), images_per_second: null })),
  };
};
