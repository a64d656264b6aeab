/**
 * What serves the page of `slotcon watch`. Requests hold no paths: they name a run by its identity and a slot map by its
 * step. Pages of other sites are given nothing, and this one may load nothing from elsewhere.
 */
import { Effect, type Scope } from "effect";
import { printable } from "../../data/files/printable.ts";
import { expectWithin, UsageError } from "../flags/usage_error.ts";
import type { GrowingTable } from "./growing_table.ts";
import { type Answer, type Question, serveHttp } from "./http.ts";
import { jsonWriter } from "./json_writer.ts";
import type { RecordedCurve } from "./recorded_curve.ts";
import { inTurn, within } from "./run_file.ts";
import { drawingOf, type Drawings, identityOf, type Run, type WatchedRuns } from "./runs.ts";
import { writeThinned } from "./thinned.ts";

export interface Watched {
  readonly runs: WatchedRuns;
  readonly curves: readonly RecordedCurve[];
}

const page = (file: string) => new URL(`page/${file}`, import.meta.url);
const library = (file: string) => new URL(`../../node_modules/uplot/dist/${file}`, import.meta.url);
const SCRIPT = "text/javascript; charset=utf-8", STYLE = "text/css; charset=utf-8";

/** Files that are served unchanged, with their media types. */
const FILES: Readonly<Record<string, readonly [URL, string]>> = {
  "/": [page("index.html"), "text/html; charset=utf-8"],
  "/page.css": [page("page.css"), STYLE],
  "/page.js": [page("page.js"), SCRIPT],
  "/charts.js": [page("charts.js"), SCRIPT],
  "/panels.js": [page("panels.js"), SCRIPT],
  "/icon.svg": [page("icon.svg"), "image/svg+xml"],
  "/uplot.js": [library("uPlot.iife.min.js"), SCRIPT],
  "/uplot.css": [library("uPlot.min.css"), STYLE],
};

const HEADERS = {
  "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cache-control": "no-store",
};

const answer = (body: string | Uint8Array<ArrayBuffer>, type: string, status = 200): Answer => ({
  status,
  headers: { ...HEADERS, "content-type": type },
  body: typeof body === "string" ? new TextEncoder().encode(body) : body,
});
const json = (text: string | Uint8Array<ArrayBuffer>) => answer(text, "application/json");
const refusal = (status: number, reason: string, more: Answer["headers"] = {}): Answer => {
  const { headers, ...rest } = answer(`${reason}\n`, "text/plain; charset=utf-8", status);
  return { ...rest, headers: { ...headers, ...more } };
};

const WRONG_HOST =
  "This page is not served under this name: ask for it at localhost or, where --host lets others see it, " +
  "by the address of its machine or the name given as --host";

/** Milliseconds: between two looks for new runs at least, for the folders to be read, and for an answer as a whole. */
const LOOK_AGAIN = 2000, READING = 1500, ANSWERING = 10_000;
const MOST_POINTS = 2000; // of a curve
const MOST_NUMBERS = 120_000; // of all curves of an answer: about a megabyte

/** Answers a request of the page. `isOurs` knows the names of hosts under which the page may be asked for. */
export const handler = (
  { runs: { runs, find }, curves }: Watched,
  isOurs: (host: string) => boolean,
): (question: Question) => Promise<Answer> => {
  let next = -Infinity; // when to look for runs again
  const look = async () => {
    const start = performance.now();
    if (start < next) return;
    next = Infinity;
    await find().finally(() =>
      next = performance.now() + Math.max(LOOK_AGAIN, 10 * (performance.now() - start))
    );
  };

  const describeAll = async () => {
    await within(READING, look().catch(() => {}), undefined);
    return JSON.stringify(await Promise.all(runs.map(describe)));
  };
  let describing: Promise<string> | null = null; // for all who ask at the same time

  const recorded = recordedCurves(curves);

  const answerOf = async ({ method, target, host }: Question): Promise<Answer> => {
    // Another site can give its own name the address of this machine, but not this one's name.
    if (!isOurs(host)) return refusal(403, WRONG_HOST);
    if (!["GET", "HEAD"].includes(method)) {
      return refusal(405, "Only GET and HEAD are answered", { allow: "GET, HEAD" });
    }
    const { pathname, searchParams } = new URL(`http://${host}${target}`);
    if (Object.hasOwn(FILES, pathname)) {
      const [file, type] = FILES[pathname];
      return answer(await Deno.readFile(file), type);
    }
    if (pathname === "/runs") {
      return json(await (describing ??= describeAll().finally(() => describing = null)));
    }
    if (pathname === "/curves") return json(recorded.slice());

    const run = runs.find((run) => identityOf(run) === searchParams.get("run"));
    if (run === undefined) return refusal(404, "There is no such run");
    if (pathname === "/series" || pathname === "/times") {
      const [source, keep] = pathname === "/series"
        ? [run.metrics, "extremes"] as const
        : [run.times, "sums"] as const;
      return json(await seriesOf(source, keep, searchParams));
    }
    const drawings = DRAWINGS.get(pathname);
    if (drawings !== undefined) {
      const step = searchParams.get("step") ?? "pictures"; // as they are
      if (!/^(\d{1,9}|pictures|truth)$/.test(step)) return refusal(404, "There is no such picture");
      const which = step === "pictures" || step === "truth" ? step : Number(step);
      const bytes = await inTurn(() => drawingOf(run, drawings, which));
      return bytes === null ? refusal(404, "There is no such picture") : answer(bytes, "image/jpeg");
    }
    return refusal(404, "There is nothing here");
  };

  return (question) =>
    within(
      ANSWERING,
      answerOf(question).catch(() => refusal(500, "This cannot be answered")),
      refusal(503, `This takes longer than ${ANSWERING / 1000} s`),
    );
};

const DRAWINGS: ReadonlyMap<string, Drawings> = new Map([
  ["/slots", "slot_maps"],
  ["/predictions", "predictions"],
]);

const writer = jsonWriter();

/** Curves that were recorded elsewhere, as JSON. */
const recordedCurves = (curves: readonly RecordedCurve[]): Uint8Array<ArrayBuffer> => {
  const whole = {
    from: -Infinity,
    to: Infinity,
    points: MOST_POINTS,
    keep: "extremes",
    smoothing: null,
  } as const;
  writer.text("[");
  curves.forEach(({ name, steps, loss }, i) => {
    writer.text(`${i === 0 ? "" : ","}{"name":${JSON.stringify(name)},`);
    writeThinned(writer, { rows: steps.length, steps, columns: new Map([["loss", loss]]) }, whole);
    writer.text("}");
  });
  writer.text("]");
  return writer.take();
};

/** The curves of a run's table as JSON, as the page wants them. */
const seriesOf = async (
  source: GrowingTable,
  keep: "extremes" | "sums",
  asked: URLSearchParams,
): Promise<Uint8Array<ArrayBuffer>> => {
  const number = (name: string, least: number, most: number, otherwise: number) => {
    const given = asked.get(name) ?? "";
    return given === "" || !Number.isFinite(Number(given))
      ? otherwise
      : Math.min(Math.max(Number(given), least), most);
  };
  const [from, to] = [number("from", 0, Infinity, 0), number("to", 0, Infinity, Number.MAX_SAFE_INTEGER)];
  const smoothing = number("smoothing", 0, 1e9, 0) > 1 ? number("smoothing", 0, 1e9, 0) : null;
  await source.pollBriefly();
  const version = source.version();
  const curves = Math.max(1, source.table().columns.size) * (smoothing === null ? 1 : 2);
  const points = Math.min(number("points", 2, MOST_POINTS, 1000), MOST_NUMBERS / curves);
  const { table, before } = await source.around(from, to, points / 2);
  writer.take(); // what an error may have left
  writer.text(`{"version":${JSON.stringify(version)},`);
  writeThinned(writer, table, { from, to, points, keep, smoothing, before });
  writer.text("}");
  return writer.take();
};

/** What the page says of a run besides its curves. */
const describe = async (run: Run) => {
  await Promise.all([run.metrics.pollBriefly(), run.times.pollBriefly()]);
  const [plan, status, slotMaps, predictions] = await within(
    READING,
    Promise.all([run.plan(), run.status(), run.slotMaps(), run.predictions()]),
    [{}, null, [], []] as const,
  );
  const last = run.metrics.lastStep();
  const modified = run.metrics.modified();
  return {
    id: identityOf(run),
    name: run.name,
    version: `${run.metrics.version()} ${run.times.version()}`,
    steps: last === null ? 0 : last + 1, // that are done
    last: run.metrics.latest(),
    quietSeconds: modified === null ? null : Math.max(0, (Date.now() - modified) / 1000),
    problem: run.metrics.problem() ?? run.times.problem(),
    plan,
    status,
    slotMaps,
    predictions,
  };
};

export interface Address {
  readonly hostname: string;
  readonly port: number; // 0: any free one
}

/** The address that only this machine reaches. */
export const LOCALHOST = "127.0.0.1";

const LOCAL = [LOCALHOST, "localhost", "[::1]"];

/** An address as URLs have it: that of IPv6 in brackets. */
const bracketed = (host: string) => host.includes(":") ? `[${host}]` : host;

const isLocal = (address: string): boolean => /^(127(\.\d+){3}|::1)$/.test(address);

/** Whether a page that is served at this address may be asked for under a name; `hostname` is what was given as --host. */
export const isServedAs = (hostname: string, address: string): (host: string) => boolean => {
  const names = [...LOCAL, URL.parse(`http://${bracketed(hostname)}/`)?.hostname ?? ""];
  if (isLocal(address)) return (host) => names.includes(host);
  const machine = Deno.hostname().toLowerCase();
  names.push(machine, `${machine}.local`);
  // What is an address is no name that somebody else could point at this machine.
  return (host) => names.includes(host) || /^(\d+(\.\d+){3}|\[.*\])$/.test(host);
};

/** Where other machines may find a page that is served at this address. */
const urlsFor = (hostname: string, address: string, port: number): string[] => {
  const isAny = ["0.0.0.0", "::"].includes(address);
  const addresses = Deno.networkInterfaces().filter(({ address: each, family }) =>
    !isLocal(each) && !/^fe80:/i.test(each) && (family === "IPv4" || address === "::")
  ).map(({ address }) => address);
  return (isAny ? [Deno.hostname(), ...addresses] : [hostname]).map((host) =>
    `http://${bracketed(host)}:${port}/`
  );
};

export interface Served {
  readonly url: string;
  /** Where other machines may find the page; none where it is for this one alone. */
  readonly elsewhere: readonly string[];
}

/** Serves the page until the scope ends. Fails with a `UsageError` where it cannot listen there. */
export const serve = Effect.fn("serve")(function* (
  watched: Watched,
  { hostname, port }: Address,
): Effect.fn.Return<Served, UsageError, Scope.Scope> {
  yield* expectWithin({ port: [port, 0, 2 ** 16 - 1] });
  if (!/^[\w.:-]+$/.test(hostname)) {
    const reason = `expected an address or a name of this machine, found "${printable(hostname)}"`;
    return yield* new UsageError({ subject: "--host", reason });
  }
  const listener = yield* Effect.try({
    try: () => Deno.listen({ hostname, port }),
    catch: (error) => cannotListen(hostname, port, error as Error),
  });
  const at = listener.addr;
  yield* Effect.acquireRelease(
    Effect.sync(() => serveHttp(listener, handler(watched, isServedAs(hostname, at.hostname)))),
    (server) => Effect.sync(server.close),
  );
  yield* Effect.promise(() => watched.runs.find());
  for (const { metrics } of watched.runs.runs) metrics.poll(); // before anybody waits for it
  return {
    url: `http://${bracketed(hostname)}:${at.port}/`,
    elsewhere: isLocal(at.hostname) ? [] : urlsFor(hostname, at.hostname, at.port),
  };
});

const cannotListen = (hostname: string, port: number, error: Error): UsageError => {
  const [subject, why] = error instanceof Deno.errors.AddrInUse
    ? ["--port", "another program listens there"]
    : error instanceof Deno.errors.PermissionDenied
    ? ["--port", "this user may not use a port below 1024"]
    : error instanceof Deno.errors.AddrNotAvailable
    ? ["--host", "this machine has no such address"]
    : ["--host", error.message.split(/,| \(os error/)[0]];
  return new UsageError({
    subject,
    reason: `cannot listen on ${hostname}, port ${port}: ${why}`,
    remedy: "choose another",
  });
};
