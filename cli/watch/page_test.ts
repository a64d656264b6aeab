/** The page in a real browser, over a long run that has ended and a short one that is going on. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  endingOf,
  inTestFolder,
  missingApart,
  scriptApart,
  shell,
  writeNoise,
} from "../../data/_test_kit.ts";
import { randomStream } from "../../data/random/random.ts";
import { startUntil, tinyRun } from "../_test_kit.ts";

const DRIVER = "npm:puppeteer-core@25.16.0";
const SCREENSHOT = fileURLToPath(new URL("../../runs/watch.png", import.meta.url));

const browser = (...args: readonly string[]) =>
  scriptApart(fileURLToPath(new URL("_browser.ts", import.meta.url)), ["--allow-all"], [DRIVER, ...args]);

const findChromium = (): string => {
  const { out } = endingOf(
    shell("command -v chromium chromium-browser google-chrome | head -n 1").outputSync(),
  );
  return out.trim();
};

const chromium = findChromium();
const lacking = chromium === ""
  ? "there is no Chromium here; Debian and Ubuntu have the package chromium"
  : browser().outputSync().success
  ? null
  : missingApart("puppeteer-core", DRIVER);

const LONG = 200_000;
const SPIKE = 100_300;

/** A run of the length of the published ones, with a loss that is off in one step. */
const makeLongRun = async (folder: string) => {
  await Deno.mkdir(folder, { recursive: true });
  const plan = { firstStep: 0, lastStep: LONG, stepsPerEpoch: 250, batchSize: 512, deviceBytes: 2 ** 33 };
  await Deno.writeTextFile(join(folder, "plan.json"), JSON.stringify(plan));
  using file = await Deno.open(join(folder, "metrics.jsonl"), { write: true, create: true });
  const random = randomStream(5);
  for (let step = 0; step < LONG;) {
    const lines: string[] = [];
    for (const end = step + 5000; step < end; step++) {
      const loss_group = 4 * Math.exp(-step / 60_000) + 0.1 * random.uniform() + (step === SPIKE ? 30 : 0);
      const loss_slot = 2 * Math.exp(-step / 90_000) + 0.1 * random.uniform();
      const [group12, group21, contrast12, contrast21] = [loss_group, loss_group, loss_slot, loss_slot];
      lines.push(JSON.stringify({
        ...{ step, epoch: 1 + Math.floor(step / 250), loss: loss_group + loss_slot, loss_group, loss_slot },
        ...{
          group12,
          group21,
          contrast12,
          contrast21,
          positives12: 118,
          positives21: 115,
          live_prototypes: 240,
        },
        ...{ prototype_entropy: 4.5, param_norm: 300 + step / 1e4, grad_norm: 0.1 + random.uniform() },
        lr: 1 + Math.cos(Math.PI * step / LONG),
        ...{ teacher_momentum: 0.99 + step / LONG / 100, bad_images: 0, images_per_second: 312.5 },
      }));
    }
    await file.write(new TextEncoder().encode(`${lines.join("\n")}\n`));
  }
};

Deno.test({
  name:
    "the page opens a run of 200,000 steps in 2 s, zooms, finds a new run, and shows its curve and its slots grow" +
    (lacking === null ? "" : ` (skipped: ${lacking})`),
  ignore: lacking !== null,
  fn: inTestFolder(async (folder) => {
    const runs = join(folder, "runs");
    const [ended, live] = [join(runs, "ended"), join(runs, "<img src=x> & live")];
    await Deno.mkdir(join(SCREENSHOT, ".."), { recursive: true });
    await makeLongRun(ended);
    await writeNoise(join(folder, "pictures"));
    const server = await startUntil(["watch", runs], /on (http:\/\/127\.0\.0\.1:\d+\/)/);
    const stops: (() => Promise<void>)[] = [];
    try {
      const looking = browser(chromium, server.found[1], SCREENSHOT).spawn();
      const errors = new Response(looking.stderr).text();
      const seen = new Map<string, unknown>();
      let left = "";
      for await (const piece of looking.stdout.pipeThrough(new TextDecoderStream())) {
        const lines = (left + piece).split("\n");
        left = lines.pop()!;
        for (const [what, value] of lines.map((line) => JSON.parse(line))) {
          seen.set(what, value);
          if (what === "left open") {
            await server.stop();
            await Deno.mkdir(join(runs, "another"));
            await Deno.writeTextFile(join(runs, "another", "metrics.jsonl"), '{"step":6,"loss":1}\n');
            const ended = { kind: "failed", reason: "It <b>broke", at: "2026-11-29T12:00:00Z" };
            await Deno.writeTextFile(join(runs, "another", "run.json"), JSON.stringify({ ended }));
            const { port } = new URL(server.found[1]);
            stops.push((await startUntil(["watch", runs, "--port", port], /on http/)).stop);
          }
          if (what !== "zoomed twice") continue; // what is measured before has the machine to itself
          const run = await startUntil([
            ...tinyRun(join(folder, "pictures"), live),
            ...["--watch", "--epochs", "2000"],
          ], /Watch the run on (http:\/\/127\.0\.0\.1:\d+\/)/);
          stops.push(run.stop);
          const own = await (await fetch(`${run.found[1]}runs`)).json();
          assert.ok(Array.isArray(own) && own.length <= 1); // its own page knows of no other run
        }
      }
      assert.ok((await looking.status).success, await errors);

      type Range = [points: number, from: number, to: number];
      const range = (what: string) => seen.get(what) as Range;
      assert.ok(seen.get("opened") as number < 2000, `it took ${seen.get("opened")} ms to open`);
      assert.ok(seen.get("longest frame") as number < 100, `a frame took ${seen.get("longest frame")} ms`);
      assert.deepEqual(range("whole").slice(1), [0, LONG - 1]);
      assert.ok(range("whole")[0] <= 1300);
      const [points, from, to] = range("zoomed twice");
      assert.ok(range("zoomed")[1] < from && to < range("zoomed")[2]);
      assert.ok(to - from < 3000 && points > (to - from) / 4, `${points} points from ${from} to ${to}`);
      assert.deepEqual(range("whole again").slice(1), [0, LONG - 1]);
      assert.deepEqual(seen.get("runs"), ["ended", "<img src=x> & live"]);
      const [before, after, isRedrawn] = seen.get("grown") as [number, number, boolean];
      assert.ok(after >= before + 3 && isRedrawn);
      for (const title of ["Loss", "Prototypes in use", "Gradient norm", "Device time", "Device memory"]) {
        assert.ok(
          (seen.get("charts") as string[]).includes(title),
          `${title} is not in ${seen.get("charts")}`,
        );
      }
      assert.match(seen.get("legend") as string, /ended.*<img src=x> & live/);
      const [light, dark] = seen.get("dark") as string[];
      assert.notEqual(light, dark);
      assert.equal(seen.get("foreign images"), 0);
      assert.deepEqual(seen.get("origins"), [new URL(server.found[1]).origin]);
      assert.deepEqual(seen.get("problems"), []);
      assert.ok((await Deno.stat(SCREENSHOT)).size > 20_000);
      const rows = seen.get("rows") as [name: string, status: string, steps: string][];
      assert.deepEqual(rows.map(([name]) => name), ["<img src=x> & live", "another", "ended"]);
      assert.deepEqual(rows.map(([, status]) => status), ["running", "failed: It <b>broke", "finished"]);
      assert.deepEqual(rows.slice(1).map(([, , steps]) => steps), ["7", `${LONG} / ${LONG}`]);
      assert.match(seen.get("legend later") as string, /^<img src=x> & live.*another.*ended/);
    } finally {
      for (const stop of stops) await stop();
      await server.stop();
    }
  }),
});
