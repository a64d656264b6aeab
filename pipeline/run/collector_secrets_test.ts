import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest } from "../../ops/_test_kit.ts";
import { photographs, tinyRun } from "../_test_kit.ts";
import { configure } from "../pretrain/config.ts";
import { pretrain } from "../pretrain/pretrain.ts";

const given = (value: string) => configure(null, new Map([["otlp", { value, where: "--otlp" }]]));

Deno.test("configurations and messages have no password and no token of --otlp", async () => {
  for (
    const [url, bare] of [
      ["http://user:s3cret@127.0.0.1:9/x", "http://127.0.0.1:9/x"],
      ["http://s3cret@127.0.0.1:9", "http://127.0.0.1:9/"],
      ["https://host/v?token=s3cret", "https://host/v"],
      ["http://localhost:4318", "http://localhost:4318"],
    ]
  ) {
    assert.equal((await Effect.runPromise(given(url))).otlp, bare);
  }
  for (
    const url of [
      "htp://user:s3cret@host",
      "user:s3cret@host",
      "//user:s3cret@host",
      "ftp://host?token=s3cret",
    ]
  ) {
    const message = await Effect.runPromise(given(url)).then(() => "nothing", ({ message }) => message);
    assert.match(message, /^--otlp: expected a URL/);
    assert.ok(!message.includes("s3cret"), message);
  }
});

gpuTest("pretrain() gives the password of --otlp to the collector, and to no file", function* () {
  const asked: (string | null)[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    asked.push(`${request.headers.get("authorization")} ${new URL(request.url).search}`);
    return Response.json({});
  });
  const { otlp } = yield* given(`http://us%40er:s3cret@127.0.0.1:${server.addr.port}/?token=t0ken`);
  const config = yield* tinyRun({ batchSize: 2, steps: 2, saveSteps: 1, otlp });
  yield* pretrain(config, photographs);
  yield* Effect.promise(() => server.shutdown());
  assert.deepEqual(new Set(asked), new Set([`Basic ${btoa("us@er:s3cret")} ?token=t0ken`]));
  const search = (folder: string): void => {
    for (const { name, isDirectory } of Deno.readDirSync(folder)) {
      if (isDirectory) search(`${folder}/${name}`);
      else {
        const bytes = new TextDecoder("latin1").decode(Deno.readFileSync(`${folder}/${name}`));
        assert.ok(!/s3cret|t0ken/.test(bytes), name);
      }
    }
  };
  search(config.outputDir);
});
