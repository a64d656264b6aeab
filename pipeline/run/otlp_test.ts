import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Logger, Tracer } from "effect";
import { gpuTest } from "../../ops/_test_kit.ts";
import { photographs, tinyRun } from "../_test_kit.ts";
import { pretrain } from "../pretrain/pretrain.ts";

/** Three steps of a tiny network, which tell a collector. */
const prepared = (otlp: string) => tinyRun({ batchSize: 2, steps: 3, saveSteps: 2, otlp });

interface Request {
  readonly path: string;
  // deno-lint-ignore no-explicit-any
  readonly body: any;
}

/** What listens on a port of this machine until the scope ends. */
const listening = (answer: (request: globalThis.Request) => Response | Promise<Response>) =>
  Effect.acquireRelease(
    Effect.sync(() => Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, answer)),
    (server) => Effect.promise(() => server.shutdown()),
  ).pipe(Effect.map(({ addr }) => `http://127.0.0.1:${addr.port}`));

const attributes = (list: { key: string; value: Record<string, unknown> }[]) =>
  Object.fromEntries(list.map(({ key, value }) => [key, Object.values(value)[0]]));

gpuTest("pretrain() tells the collector of --otlp a span a stage, and its metrics", function* () {
  const requests: Request[] = [];
  const url = yield* listening(async (request) => {
    requests.push({ path: new URL(request.url).pathname, body: await request.json() });
    return Response.json({});
  });
  const config = yield* prepared(`${url}/otlp/`);
  yield* pretrain(config, photographs);
  assert.deepEqual(
    new Set(requests.map(({ path }) => path)),
    new Set(["/otlp/v1/traces", "/otlp/v1/metrics"]),
  );

  const traces = requests.flatMap(({ body }) => body.resourceSpans ?? []);
  const { "slotcon.adapter": adapter, ...resource } = attributes(traces[0].resource.attributes);
  assert.equal(typeof adapter, "string");
  assert.equal(resource["service.name"], "slotcon");
  assert.equal(resource["slotcon.output_dir"], config.outputDir);
  assert.equal(resource["slotcon.arch"], "resnet18");

  const spans = traces.flatMap(({ scopeSpans }) => scopeSpans).flatMap(({ spans }) => spans);
  const [run, ...others] = spans.filter(({ name }) => name === "pretrain");
  assert.equal(others.length, 0);
  assert.ok(!run.parentSpanId);
  const stepsOf = (stage: string) =>
    spans.filter(({ name }) => name === stage).map((span) => {
      assert.deepEqual([span.traceId, span.parentSpanId], [run.traceId, run.spanId], stage);
      assert.ok(BigInt(run.startTimeUnixNano) < BigInt(span.startTimeUnixNano));
      assert.ok(BigInt(span.startTimeUnixNano) < BigInt(span.endTimeUnixNano));
      assert.ok(BigInt(span.endTimeUnixNano) <= BigInt(run.endTimeUnixNano));
      return attributes(span.attributes).step;
    });
  assert.deepEqual(stepsOf("submit"), [0, 1, 2]);
  assert.deepEqual(stepsOf("read"), [0, 1, 2]);
  assert.deepEqual(stepsOf("decode").slice(0, 3), [0, 1, 2]); // which is ahead of the others
  assert.deepEqual(stepsOf("save"), [2, 3]); // steps done
  assert.ok(spans.some(({ name, parentSpanId }) => name === "compile" && parentSpanId === run.spanId));

  const latest = requests.flatMap(({ body }) => body.resourceMetrics ?? []).at(-1);
  const told = Object.fromEntries(
    latest.scopeMetrics[0].metrics.map((
      { name, sum, gauge }: Record<string, { dataPoints: [{ asDouble: number }] }>,
    ) => [name, { [sum ? "sum" : "gauge"]: (sum ?? gauge).dataPoints[0].asDouble }]),
  );
  const lines = Deno.readTextFileSync(join(config.outputDir, "metrics.jsonl")).trim().split("\n");
  const wanted = Object.entries(JSON.parse(lines[2]) as Record<string, number>)
    .map(([name, value]) => [`slotcon.${name}`, name === "bad_images" ? { sum: 0 } : { gauge: value }]);
  assert.deepEqual(told, {
    ...Object.fromEntries(wanted),
    "slotcon.steps": { sum: 3 },
    "slotcon.images": { sum: 6 },
  });
});

gpuTest("pretrain() goes on where no collector answers, and says so once", function* () {
  const refusing = yield* listening(() => new Response(null, { status: 404 }));
  const config = yield* prepared(refusing);
  const warnings: string[] = [];
  const logger = Logger.make(({ message, logLevel }) => {
    if (logLevel === "Warn") warnings.push(String(message));
  });
  const done = yield* pretrain(config, photographs).pipe(Effect.provide(Logger.layer([logger])));
  assert.equal(done, 3);
  assert.deepEqual(warnings.filter((text) => text.includes("--otlp")), [
    `Cannot send to --otlp ${refusing}: it answers with status 404; expected a collector of OTLP over HTTP there, ` +
    `whose port is often 4318. The run goes on and tries again now and then`,
  ]);
});

gpuTest("pretrain() makes no spans of its steps without --otlp", function* () {
  const config = { ...yield* prepared("http://127.0.0.1"), otlp: null };
  const names: string[] = [];
  const tracer = Tracer.make({
    span: (options) => {
      names.push(options.name);
      return new Tracer.NativeSpan(options);
    },
  });
  yield* pretrain(config, photographs).pipe(Effect.withTracer(tracer));
  assert.ok(names.includes("pretrain") && names.includes("compile"));
  for (const stage of ["decode", "submit", "read", "save"]) assert.ok(!names.includes(stage), stage);
});
