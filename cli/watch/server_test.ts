import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "../../data/_test_kit.ts";
import { watchedRuns } from "./runs.ts";
import { handler } from "./server.ts";

const makeRun = async (folder: string, losses: readonly number[]) => {
  await Deno.mkdir(join(folder, "slot_maps"), { recursive: true });
  const lines = losses.map((loss, step) => `${JSON.stringify({ step, loss })}\n`);
  await Deno.writeTextFile(join(folder, "metrics.jsonl"), lines.join(""));
};

const opened = (...folders: string[]) => handler({ runs: watchedRuns(folders), curves: [] }, ["127.0.0.1"]);
const ask = async (handle: ReturnType<typeof opened>, path: string, host = "127.0.0.1", method = "GET") => {
  const response = await handle(new Request(`http://${host}${path}`, { method }));
  return { response, text: await response.text() };
};

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
    await ask(handle, "/runs");

    const page = await ask(handle, "/");
    assert.match(page.text, /<title>slotcon watch/);
    const rules = page.response.headers.get("content-security-policy")!;
    assert.match(rules, /default-src 'none'; script-src 'self';/);
    assert.doesNotMatch(rules, /unsafe|http/);
    assert.equal(page.response.headers.get("x-content-type-options"), "nosniff");
    assert.doesNotMatch(page.text, /https?:/); // it needs no internet

    assert.equal((await ask(handle, "/slots?run=0&step=2")).text, "a picture");
    const nothing = [
      ...[
        "/secret",
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/page.js/../../secret",
        "/metrics.jsonl",
      ],
      ...["/slots?run=0&step=3", "/slots?run=0&step=../../secret", "/slots?run=0&step=-1", "/slots?run=0"],
      ...[
        "/series?run=1",
        "/series?run=../0",
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
  }),
);

Deno.test(
  "the server finds runs below a folder, also later ones, and serves each run's own curve as it grows",
  inTestFolder(async (folder) => {
    await makeRun(join(folder, "a"), [3, 2]);
    await makeRun(join(folder, "deep", "b"), [9]);
    const handle = opened(folder);
    const names = async () =>
      JSON.parse((await ask(handle, "/runs")).text).map(({ name }: { name: string }) => name);
    assert.deepEqual(await names(), ["a", join("deep", "b")]);
    const losses = async (run: number) =>
      JSON.parse((await ask(handle, `/series?run=${run}`)).text).columns.loss;
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
