import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "../data/_test_kit.ts";
import { runSlotcon, slotconCommand } from "./_test_kit.ts";

const makeRun = async (folder: string) => {
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(join(folder, "metrics.jsonl"), '{"step":0,"loss":1}\n');
};

Deno.test(
  "slotcon watch --host says who sees the page, serves it under no other name, and ends at once with clients that wait",
  inTestFolder(async (folder) => {
    await makeRun(join(folder, "a\x1b[31m"));
    const child = slotconCommand(["watch", folder, "--host", "0.0.0.0"]).spawn();
    let said = "";
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    while (!/Anyone .*\n/.test(said)) {
      const { value, done } = await reader.read();
      assert.ok(!done, said);
      said += value;
    }
    const port = Number(said.match(/^Watching a\\u001b\[31m on http:\/\/0\.0\.0\.0:(\d+)\//)?.[1]);
    assert.match(
      said,
      /^Anyone who can reach this machine sees the runs there without a password, at http:\/\/\S+:\d+\//m,
    );
    const ask = async (host: string) => {
      using socket = await Deno.connect({ hostname: "127.0.0.1", port });
      await socket.write(
        new TextEncoder().encode(`GET /runs HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`),
      );
      return (await new Response(socket.readable).text()).match(/^HTTP\/1\.1 (\d+)/)?.[1];
    };
    assert.deepEqual([await ask(`localhost:${port}`), await ask("10.0.0.1"), await ask("attacker.example")], [
      ...["200", "200", "403"],
    ]);

    using _waits = await Deno.connect({ hostname: "127.0.0.1", port });
    const start = performance.now();
    child.kill("SIGTERM");
    while (!(await reader.read()).done);
    await child.stderr.cancel();
    assert.equal((await child.status).code, 143);
    assert.ok(performance.now() - start < 3000);
  }),
);

Deno.test(
  "slotcon watch says in a sentence where it cannot listen, and what it expects instead",
  inTestFolder(async (folder) => {
    await makeRun(join(folder, "run"));
    for (
      const [args, sentence] of [
        [["--host", "*"], /^slotcon: --host: expected an address or a name of this machine, found "\*"/],
        [
          ["--port", "70000"],
          /^slotcon: --port: expected 0 to 65535, found 70000/,
        ],
        [
          ["--host", "203.0.113.9"],
          /^slotcon: --host: cannot listen on 203\.0\.113\.9, port 0: this machine has no such address: choose another/,
        ],
      ] as const
    ) {
      const { code, err } = await runSlotcon(folder, "watch", folder, ...args);
      assert.match(err.trim().split("\n").at(-1)!, sentence);
      assert.doesNotMatch(err, /--allow-|^ *at /m);
      assert.equal(code, 1);
    }
  }),
);
