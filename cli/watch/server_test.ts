import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "../../data/_test_kit.ts";
import { watchedRuns } from "./runs.ts";
import { handler, isServedAs } from "./server.ts";

const makeRun = async (folder: string, losses: readonly number[]) => {
  await Deno.mkdir(join(folder, "slot_maps"), { recursive: true });
  const lines = losses.map((loss, step) => `${JSON.stringify({ step, loss })}\n`);
  await Deno.writeTextFile(join(folder, "metrics.jsonl"), lines.join(""));
};

const opened = (...folders: string[]) =>
  handler({ runs: watchedRuns(folders), curves: [] }, isServedAs("127.0.0.1", "127.0.0.1"));
const ask = async (handle: ReturnType<typeof opened>, target: string, host = "127.0.0.1", method = "GET") => {
  const { body, ...rest } = await handle({ method, target, host });
  const response = new Response(body, rest);
  return { response, text: await response.text() };
};

interface Described {
  readonly status: { readonly kind: string; readonly at?: string; readonly reason?: string } | null;
  readonly id: string;
  readonly name: string;
  readonly steps: number;
  readonly problem: string | null;
}

const runsOf = async (handle: ReturnType<typeof opened>): Promise<readonly Described[]> =>
  JSON.parse((await ask(handle, "/runs")).text);
const idOf = async (handle: ReturnType<typeof opened>, name: string) =>
  (await runsOf(handle)).find((run) => run.name === name)?.id;
const lossesOf = async (handle: ReturnType<typeof opened>, id?: string) =>
  JSON.parse((await ask(handle, `/series?run=${id}`)).text).columns.loss;

Deno.test(
  "the server gives a page of its own and nothing from outside a run, whatever is asked for",
  inTestFolder(async (folder) => {
    const run = join(folder, "run");
    await makeRun(run, [3, 2, 1]);
    await Deno.writeTextFile(join(folder, "secret"), "secret");
    await Deno.writeTextFile(join(run, "slot_maps", "step_000002.jpg"), "a picture");
    await Deno.symlink(join(folder, "secret"), join(run, "slot_maps", "step_000003.jpg"));
    await Deno.symlink(join(folder, "secret"), join(run, "plan.json"));
    const handle = opened(run);
    const id = await idOf(handle, "run");

    const page = await ask(handle, "/");
    assert.match(page.text, /<title>slotcon watch/);
    const rules = page.response.headers.get("content-security-policy")!;
    assert.match(rules, /default-src 'none'; script-src 'self';/);
    assert.doesNotMatch(rules, /unsafe|http/);
    assert.equal(page.response.headers.get("x-content-type-options"), "nosniff");
    assert.doesNotMatch(page.text, /https?:/); // it needs no internet

    assert.equal((await ask(handle, `/slots?run=${id}&step=2`)).text, "a picture");
    const nothing = [
      ...[
        "/secret",
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/page.js/../../secret",
        "/metrics.jsonl",
      ],
      ...["&step=3", "&step=../../secret", "&step=-1", ""].map((step) => `/slots?run=${id}${step}`),
      ...[
        "/series?run=1",
        "/series?run=0",
        `/series?run=../${id}`,
        "/series",
        "/slots?run=__proto__",
        "/constructor",
        "/__proto__",
      ],
    ];
    for (const path of nothing) {
      const { response, text } = await ask(handle, path);
      assert.equal(response.status, 404, path);
      assert.doesNotMatch(text, /secret/);
    }
    assert.deepEqual(JSON.parse((await ask(handle, "/runs")).text)[0].plan, {});
    assert.equal((await ask(handle, "/runs", "attacker.example")).response.status, 403);
    assert.equal((await ask(handle, "/runs", "127.0.0.1", "POST")).response.status, 405);
    assert.equal((await ask(handle, "/runs", "127.0.0.1", "HEAD")).response.status, 200);
  }),
);

Deno.test(
  "the server finds runs below a folder, also later ones, and serves each run's own curve as it grows",
  inTestFolder(async (folder) => {
    await makeRun(join(folder, "a"), [3, 2]);
    await makeRun(join(folder, "deep", "b"), [9]);
    const handle = opened(folder);
    const names = async () => (await runsOf(handle)).map(({ name }) => name);
    assert.deepEqual(await names(), ["a", join("deep", "b")]);
    const losses = async (run: number) => lossesOf(handle, (await runsOf(handle))[run].id);
    assert.deepEqual([await losses(0), await losses(1)], [[3, 2], [9]]);

    await Deno.writeTextFile(join(folder, "a", "metrics.jsonl"), '{"step":2,"loss":1}\n{"step":3,"lo', {
      append: true,
    });
    assert.deepEqual(await losses(0), [3, 2, 1]);
    await makeRun(join(folder, "c"), [7]);
    for (const deadline = Date.now() + 10_000; (await names()).length < 3;) assert.ok(Date.now() < deadline);
    assert.deepEqual(await names(), ["a", join("deep", "b"), "c"]);
    assert.deepEqual(await losses(2), [7]);
  }),
);

/** Makes a file of a kind that is none to read, in a folder of its own; what is said of it. */
const BAD: Readonly<Record<string, readonly [make: (file: string) => unknown, problem: RegExp]>> = {
  folder: [(file) => Deno.mkdir(file), /is a folder/],
  "link to itself": [(file) => Deno.symlink("metrics.jsonl", file), /is a link that leads to itself/],
  "link to nothing": [(file) => Deno.symlink("nothing", file), /is a link to a file that is not there/],
  "link out": [(file) => Deno.symlink(join("..", "..", "secret"), file), /is a link that leads out/],
  "link to a device": [(file) => Deno.symlink("/dev/zero", file), /is a link that leads out/],
  pipe: [(file) => new Deno.Command("sh", { args: ["-c", 'mkfifo "$0"', file] }).output(), /is a named pipe/],
  "a hundred gigabytes": [async (file) => {
    using made = await Deno.open(file, { write: true, create: true });
    await made.truncate(1e11);
  }, /has 100\.0 GB, expected less than/],
  "no text": [
    (file) => Deno.writeFile(file, crypto.getRandomValues(new Uint8Array(60_000))),
    /line 1: expected an object/,
  ],
  "a line without end": [
    (file) => Deno.writeTextFile(file, '{"step":'.repeat(1_000_000)),
    /line 1: expected an object/,
  ],
};

Deno.test(
  "the server shows runs whose files cannot be read as empty, says why, and serves all others",
  inTestFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "secret"), '{"step":0,"loss":7}\n');
    const runs = join(folder, "runs");
    await makeRun(join(runs, "good"), [3, 2]);
    for (const [name, [make]] of Object.entries(BAD)) {
      await Deno.mkdir(join(runs, name));
      await make(join(runs, name, "metrics.jsonl"));
    }
    // Where the metrics are good, whatever else is in the folder.
    const odd = join(runs, "odd");
    await makeRun(odd, [5]);
    await Deno.mkdir(join(odd, "plan.json"));
    await BAD.pipe[0](join(odd, "times.jsonl"));
    await BAD.pipe[0](join(odd, "slot_maps", "step_000001.jpg"));
    const wrong = join(runs, "wrong");
    await makeRun(wrong, [6]);
    const plan =
      '{"lastStep":"<b>","batchSize":-1,"deviceBytes":1e999,"memory":{"state":"x"},"device":"a\\u001b[31m"}';
    await Deno.writeTextFile(join(wrong, "plan.json"), plan);

    const handle = opened(runs);
    const start = performance.now();
    const all = await runsOf(handle);
    for (const [name, [, problem]] of Object.entries(BAD)) {
      const run = all.find((run) => run.name === name);
      assert.match(String(run?.problem ?? null), problem, name);
      assert.equal(run?.steps ?? 0, 0);
    }
    assert.deepEqual(await lossesOf(handle, await idOf(handle, "good")), [3, 2]);
    assert.deepEqual(await lossesOf(handle, await idOf(handle, "odd")), [5]);
    assert.match(all.find(({ name }) => name === "odd")!.problem!, /times\.jsonl is a named pipe/);
    assert.equal((await ask(handle, `/slots?run=${await idOf(handle, "odd")}&step=1`)).response.status, 404);
    const shown = JSON.parse((await ask(handle, "/runs")).text).find(({ name }: Described) =>
      name === "wrong"
    );
    assert.deepEqual(shown.plan, { device: "a\\u001b[31m" });
    assert.ok(performance.now() - start < 20_000);
  }),
);

Deno.test(
  "the server says how each run is doing or how it ended, and believes nothing else that a run.json says",
  inTestFolder(async (folder) => {
    const at = "2026-11-29T12:00:00.000Z";
    const record = (ended?: unknown) => JSON.stringify({ pid: 7, host: "here", started: at, ended });
    const files: Readonly<Record<string, string | null>> = {
      finished: record({ kind: "finished", at }),
      stopped: record({ kind: "stopped", at }),
      failed: record({ kind: "failed", at: "\x1b[31m", reason: `<b>\x1b[31m${"long ".repeat(1000)}` }),
      killed: record(),
      running: record(),
      other: record({ kind: "constructor", at }),
      older: null,
      "no JSON": "[",
      "no object": "null",
    };
    for (const [name, text] of Object.entries(files)) {
      await makeRun(join(folder, name), [1]);
      if (text !== null) await Deno.writeTextFile(join(folder, name, "run.json"), text);
    }
    await makeRun(join(folder, "link"), [1]);
    await Deno.symlink(join("..", "failed", "run.json"), join(folder, "link", "run.json"));
    await makeRun(join(folder, "pipe"), [1]);
    await BAD.pipe[0](join(folder, "pipe", "run.json"));
    using lock = await Deno.open(join(folder, "running", "run.json"), { read: true, write: true });
    await lock.lock(true);

    const handle = opened(folder);
    const statuses = async () =>
      Object.fromEntries((await runsOf(handle)).map(({ name, status }) => [name, status]));
    const { failed, ...others } = await statuses();
    assert.deepEqual(others, {
      ...{ finished: { kind: "finished", at }, stopped: { kind: "stopped", at } },
      ...{ killed: { kind: "killed" }, running: { kind: "running" }, other: { kind: "killed" } },
      ...{ older: null, "no JSON": null, "no object": null, link: null, pipe: null },
    });
    assert.match(failed!.reason!, /^<b>\\u001b\[31mlong /);
    assert.deepEqual([failed!.kind, failed!.at, failed!.reason!.length], ["failed", undefined, 1000]);
    await lock.unlock();
    assert.deepEqual((await statuses()).running, { kind: "killed" });
  }),
);

Deno.test(
  "the server knows runs by their folder and their start: also after it was started again, and not by their order",
  inTestFolder(async (folder) => {
    await makeRun(join(folder, "b"), [9, 8]);
    const before = await idOf(opened(folder), "b");
    await makeRun(join(folder, "a"), [1, 2]);
    await Deno.writeTextFile(join(folder, "b", "metrics.jsonl"), '{"step":2,"loss":7}\n', { append: true });
    const handle = opened(folder);
    assert.deepEqual((await runsOf(handle)).map(({ name }) => name), ["a", "b"]);
    assert.equal(await idOf(handle, "b"), before);
    assert.deepEqual(await lossesOf(handle, before), [9, 8, 7]);

    // Another run in the same folder is another run.
    await Deno.rename(join(folder, "b", "metrics.jsonl"), join(folder, "b", "metrics.1.jsonl"));
    await makeRun(join(folder, "b"), [4]);
    const after = await idOf(handle, "b");
    assert.notEqual(after, before);
    assert.equal((await ask(handle, `/series?run=${before}`)).response.status, 404);
    assert.deepEqual(await lossesOf(handle, after), [4]);

    await Deno.remove(join(folder, "a"), { recursive: true });
    for (const deadline = Date.now() + 10_000; (await runsOf(handle)).length > 1;) {
      assert.ok(Date.now() < deadline);
    }
    assert.deepEqual(await lossesOf(handle, after), [4]);
  }),
);

Deno.test("isServedAs() knows this machine's names and addresses, and no name that somebody else could point at it", () => {
  const at = (hostname: string, address: string, ...hosts: string[]) =>
    hosts.map(isServedAs(hostname, address));
  assert.deepEqual(at("127.0.0.1", "127.0.0.1", "localhost", "127.0.0.1", "[::1]"), [true, true, true]);
  assert.deepEqual(
    at("127.0.0.1", "127.0.0.1", "attacker.example", "localhost.attacker.example", "10.0.0.1", ""),
    [
      ...[false, false, false, false],
    ],
  );
  const machine = Deno.hostname().toLowerCase();
  assert.deepEqual(at("0.0.0.0", "0.0.0.0", "localhost", "10.0.0.1", "[fd00::1]", machine), [
    true,
    true,
    true,
    true,
  ]);
  assert.deepEqual(
    at("0.0.0.0", "0.0.0.0", "attacker.example", `${machine}.attacker.example`, "10.0.0.1.example"),
    [
      ...[false, false, false],
    ],
  );
  assert.deepEqual(at("Gpu1.example.org", "10.0.0.1", "gpu1.example.org", "gpu2.example.org"), [true, false]);
});
