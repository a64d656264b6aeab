/** A run's spans and metrics for OpenTelemetry, sent to a collector by OTLP over HTTP, as JSON. */
import { resolve } from "node:path";
import { ConfigProvider, Context, Effect, identity, Layer, Metric, type Scope } from "effect";
import { FetchHttpClient, HttpClient, HttpClientError, HttpClientResponse } from "effect/http";
import { OtlpMetrics, OtlpSerialization, OtlpTracer } from "effect/observability";
import { Collective } from "../../ops/runtime/collective.ts";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { masked, secretsOf } from "./collector_secrets.ts";
import type { RunConfig } from "./options.ts";
import { metricsLine, Progress, type StepReport } from "./progress.ts";
import { PROJECT_VERSION } from "./project_version.ts";

/** Makes the work of a stage for a step a span; a no-op unless the run is exported. */
export type StageSpan = (
  stage: string,
  step: number,
) => <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>;

/** The spans of the run that this effect is part of. */
export const StageSpan: Context.Reference<StageSpan> = Context.Reference("slotcon/StageSpan", {
  defaultValue: (): StageSpan => () => identity,
});

/** What the export needs to know of a run. */
export interface ExportedRun extends Pick<RunConfig, "otlp" | "outputDir" | "batchSize"> {
  /** The encoder's architecture. */
  readonly arch: string;
}

/**
 * A run of the task `task` in a scope of its own, which sends spans and metrics to the collector of `--otlp`, if there
 * is one. The run is a span of the task's name, and the stages of its steps are spans within it; the numbers of
 * `metrics.jsonl` are gauges and counters. A collector that fails causes one warning, and neither ends nor delays the
 * run.
 */
export const exported = <A, E, R>(
  run: Effect.Effect<A, E, R>,
  task: string,
  config: ExportedRun,
): Effect.Effect<A, E, Exclude<R, Scope.Scope> | Gpu> =>
  config.otlp === null ? run.pipe(Effect.scoped, Effect.withSpan(task)) : run.pipe(
    Effect.scoped,
    Effect.withSpan(task, { root: true }),
    Effect.provide(layerOtlp(config, config.otlp)),
  );

const layerOtlp = (config: ExportedRun, url: string) =>
  Layer.unwrap(Effect.gen(function* () {
    const { report: { description: adapter } } = yield* Gpu;
    const { rank } = yield* Collective;
    const progress = yield* Progress;
    const registry = new Map(); // for the metrics of this run alone
    const { headers, search } = secretsOf(url);
    const collector = collectorAt(url);

    const step = (report: StepReport) =>
      measure(report, config.batchSize).pipe(
        Effect.provideService(Metric.MetricRegistry, registry),
        Effect.andThen(progress.step(report)),
        Effect.andThen(collector.warnOnce),
      );
    const stageSpan = (stage: string, step: number) =>
      Effect.withSpan(stage, { attributes: { step } }, { captureStackTrace: false }) as typeof identity;

    const resource = {
      serviceName: "slotcon",
      serviceVersion: PROJECT_VERSION,
      attributes: {
        "service.instance.id": `${resolve(config.outputDir)}#${rank}`,
        "slotcon.output_dir": config.outputDir,
        "slotcon.rank": rank,
        "slotcon.arch": config.arch,
        "slotcon.adapter": adapter,
      },
    };
    const endpoint = (signal: string) => {
      const to = new URL(url);
      to.pathname = `${to.pathname.replace(/\/$/, "")}/v1/${signal}`;
      to.search = search;
      return { url: to.href, headers, resource };
    };
    const spans = OtlpTracer.layer(endpoint("traces"));
    // Metrics are sums or means over all ranks: rank 0 sends them.
    const all = rank === 0 ? Layer.mergeAll(spans, OtlpMetrics.layer(endpoint("metrics"))) : spans;
    return all.pipe(
      Layer.provide([
        collector.client,
        OtlpSerialization.layerJson,
        Layer.succeed(Metric.MetricRegistry, registry),
        ConfigProvider.layer(ConfigProvider.fromUnknown({})), // it would look into the environment
      ]),
      Layer.provideMerge(Layer.mergeAll(
        Layer.succeed(StageSpan, stageSpan),
        Layer.succeed(Progress, { ...progress, step }),
        Layer.effectDiscard(Effect.addFinalizer(() => collector.warnOnce)),
      )),
    );
  }));

/** Metrics that are counters: their values of all steps add up. All others are gauges. */
const COUNTED: readonly string[] = ["bad_images"];

const measure = Effect.fnUntraced(function* (report: StepReport, batchSize: number) {
  const count = (name: string, by: number) =>
    Metric.update(Metric.counter(`slotcon.${name}`, { incremental: true }), by);
  yield* count("steps", 1);
  yield* count("images", batchSize);
  for (const [name, value] of Object.entries(metricsLine(report))) {
    if (COUNTED.includes(name)) yield* count(name, value);
    else if (Number.isFinite(value)) yield* Metric.update(Metric.gauge(`slotcon.${name}`), value);
  }
});

/** A client that gives a collector ten seconds to answer, and a warning, once, of the first failure. */
const collectorAt = (url: string) => {
  let trouble: string | null = null;
  let warned = false;
  const client = Layer.effect(HttpClient.HttpClient)(Effect.map(
    HttpClient.HttpClient,
    HttpClient.transform((answer, request) =>
      answer.pipe(
        Effect.timeoutOrElse({
          duration: "10 seconds",
          orElse: () => {
            const reason = new HttpClientError.TransportError({
              request,
              description: "no answer within 10 s",
            });
            return Effect.fail(new HttpClientError.HttpClientError({ reason }));
          },
        }),
        Effect.flatMap(HttpClientResponse.filterStatusOk),
        Effect.tapError((error) => Effect.sync(() => void (trouble ??= masked(explain(error))))),
      )
    ),
  ));
  return {
    client: client.pipe(Layer.provide(FetchHttpClient.layer)),
    warnOnce: Effect.suspend(() => {
      if (trouble === null || warned) return Effect.void;
      warned = true;
      return Effect.logWarning(
        `Cannot send to --otlp ${url}: ${trouble}; expected a collector of OTLP over HTTP there, whose port is often ` +
          `4318. The run goes on and tries again now and then`,
      );
    }),
  };
};

const explain = ({ reason }: HttpClientError.HttpClientError): string => {
  if (reason._tag === "StatusCodeError") return `it answers with status ${reason.response.status}`;
  let error: Error = reason;
  while (error.cause instanceof Error) error = error.cause;
  return "description" in error ? `${error.description}` : error.message;
};
