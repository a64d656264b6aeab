/**
 * The server of the page of `slotcon watch`. Requests hold no paths: they name a run by its number and a slot map by its
 * step. Pages of other sites get no answers, and this page may load nothing from other hosts.
 */
import { Effect } from "effect";
import { UsageError } from "../flags/usage_error.ts";
import type { GrowingTable } from "./growing_table.ts";
import type { RecordedCurve } from "./recorded_curve.ts";
import {
  readInside,
  readObject,
  type Run,
  slotMapName,
  slotMapsOf,
  type watchedRuns,
  writtenAt,
} from "./runs.ts";
import { thinned } from "./thinned.ts";

export interface Watched {
  readonly runs: ReturnType<typeof watchedRuns>;
  readonly curves: readonly RecordedCurve[];
}

const page = (file: string) => new URL(`page/${file}`, import.meta.url);
const library = (file: string) => new URL(`../../node_modules/uplot/dist/${file}`, import.meta.url);
const SCRIPT = "text/javascript; charset=utf-8", STYLE = "text/css; charset=utf-8";

/** Files that are served unchanged, by their paths in a URL. */
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

const answer = (body: BodyInit, type: string, status = 200) =>
  new Response(body, { status, headers: { ...HEADERS, "content-type": type } });
const json = (value: unknown) => answer(JSON.stringify(value), "application/json");
const refusal = (status: number, reason: string) =>
  answer(`${reason}\n`, "text/plain; charset=utf-8", status);

/** Milliseconds between two searches for new runs. */
const LOOK_AGAIN = 2000;

/** Answers the requests of the page. `hosts` are the host names that a request may use; null: any. */
export const handler = ({ runs: { runs, find }, curves }: Watched, hosts: readonly string[] | null) => {
  let looked = -Infinity;
  const look = () => {
    if (performance.now() - looked < LOOK_AGAIN) return;
    looked = performance.now();
    find();
  };

  return async (request: Request): Promise<Response> => {
    const { hostname, pathname, searchParams } = new URL(request.url);
    // DNS rebinding: another site can point its own name at 127.0.0.1, so only local names are answered.
    if (hosts !== null && !hosts.includes(hostname)) return refusal(403, "This page is for localhost only");
    if (request.method !== "GET") return refusal(405, "Only GET is answered");
    if (Object.hasOwn(FILES, pathname)) {
      const [file, type] = FILES[pathname];
      return answer(await Deno.readFile(file), type);
    }

    const number = (name: string, otherwise: number) => {
      const given = searchParams.get(name);
      return given === null || given === "" || !Number.isFinite(Number(given)) ? otherwise : Number(given);
    };
    if (pathname === "/runs") {
      look();
      return json(await Promise.all(runs.map(describe)));
    }
    if (pathname === "/curves") {
      return json(curves.map(({ name, steps, loss }) => {
        const table = { rows: steps.length, steps, columns: new Map([["loss", loss]]) };
        const range = { from: 0, to: Number.MAX_SAFE_INTEGER, points: 2000 };
        return { name, ...thinned(table, { ...range, keep: "extremes", smoothing: null }) };
      }));
    }
    const run = runs[number("run", -1)];
    if (run === undefined) return refusal(404, "There is nothing here");
    if (pathname === "/series" || pathname === "/times") {
      const isSeries = pathname === "/series";
      const source: GrowingTable = isSeries ? run.metrics : run.times;
      await source.poll();
      return json({
        version: source.version(),
        ...thinned(source.table(), {
          from: number("from", 0),
          to: number("to", Number.MAX_SAFE_INTEGER),
          points: Math.min(Math.max(number("points", 1000), 2), 10_000),
          keep: isSeries ? "extremes" : "sums",
          smoothing: number("smoothing", 0) > 1 ? number("smoothing", 0) : null,
        }),
      });
    }
    if (pathname === "/slots") {
      const step = searchParams.get("step"); // none: the images themselves
      const name = step === null ? "pictures.jpg" : /^\d+$/.test(step) ? slotMapName(Number(step)) : null;
      const bytes = name === null ? null : await readInside(run, "slot_maps", name);
      return bytes === null ? refusal(404, "There is no such picture") : answer(bytes, "image/jpeg");
    }
    return refusal(404, "There is nothing here");
  };
};

/** What the page shows of a run besides its curves. */
const describe = async (run: Run, id: number) => {
  await Promise.all([run.metrics.poll(), run.times.poll()]);
  const { rows, steps, columns } = run.metrics.table();
  const written = await writtenAt(run);
  return {
    id,
    name: run.name,
    version: `${run.metrics.version()} ${run.times.version()}`,
    rows,
    steps: rows === 0 ? 0 : steps[rows - 1] + 1, // done so far
    last: rows === 0
      ? {}
      : Object.fromEntries([...columns].map(([name, column]) => [name, column[rows - 1]])),
    quietSeconds: written === null ? null : Math.max(0, (Date.now() - written) / 1000),
    plan: await readObject(run, "plan.json"),
    config: await readObject(run, "config.json"),
    slotMaps: slotMapsOf(run),
  };
};

export interface Address {
  readonly hostname: string;
  readonly port: number; // 0: any free one
}

/** The address that only this machine reaches. */
export const LOCALHOST = "127.0.0.1";

const LOCAL = [LOCALHOST, "localhost", "[::1]"];

/** Serves the page until the scope ends; its URL. Fails with a `UsageError` where it cannot listen at the address. */
export const serve = Effect.fn("serve")(function* (watched: Watched, { hostname, port }: Address) {
  watched.runs.find();
  const isLocal = LOCAL.includes(hostname) || hostname === "::1";
  const server = yield* Effect.acquireRelease(
    Effect.try({
      try: () => Deno.serve({ hostname, port, onListen: () => {} }, handler(watched, isLocal ? LOCAL : null)),
      catch: (error) =>
        new UsageError({
          subject: "--port",
          reason: `cannot listen on ${hostname}, port ${port}: ${(error as Error).message}`,
          remedy: "choose another",
        }),
    }),
    (server) => Effect.promise(() => server.shutdown()),
  );
  for (const { metrics } of watched.runs.runs) metrics.poll().catch(() => {}); // reads long files before the page asks for them
  return `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${server.addr.port}/`;
});
