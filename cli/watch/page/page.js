/** The page: asks the server how the runs are, again and again, and shows what has changed. */
import { bare, chartCard, chartsFor, element, linesOf } from "./charts.js";
import { classesPanel, drawingsPanel, PREDICTIONS, resourcesPanel, runsPanel, SLOTS } from "./panels.js";

const EVERY = 1000; // milliseconds between two questions
const POINTS = 1200; // of a curve
const MOST_CHARTS = 64;

const $ = (id) => document.getElementById(id);
const controls = $("controls").elements;
const connection = $("connection");

let runs = [];
let curves = [];
let range = null; // of x; null: all
const shown = new Set();
const known = new Set(); // runs that the page has shown before
const fetched = new Map(); // the curves of each run, with the request that they answer

/** The server gives no answer. */
class Unanswered extends Error {}

/** What the server answers; undefined where there is no such run any more, which the next list of runs will tell. */
const ask = async (path, parameters = {}) => {
  const query = new URLSearchParams(parameters);
  const response = await fetch(`${path}?${query}`).catch(() => {
    throw new Unanswered();
  });
  if (response.status === 404) return undefined;
  if (!response.ok) throw new Unanswered();
  return response.json();
};

// --- What is shown ---

const byEpoch = () => controls.axis.value === "epoch";
/** Steps in a unit of x. */
const unit = ({ plan }) => byEpoch() && plan.stepsPerEpoch > 0 ? plan.stepsPerEpoch : 1;
const xOf = (steps, run) => steps.map((step) => step / unit(run));

const zoom = (from, to) => {
  const [low, high] = whole();
  range = to - from >= (high - low) * 0.999 ? null : [Math.max(from, low), Math.min(to, high)];
  if (range !== null && range[1] - range[0] < 1e-9) range = null;
  $("whole").disabled = range === null;
  refresh();
};
const showWhole = () => zoom(-Infinity, Infinity);

const shownRuns = () =>
  runs.map((run, place) => ({ ...run, place, ...fetched.get(run.id)?.data }))
    .filter(({ id, series }) => shown.has(id) && series !== undefined);

/** The range of x that has data. */
const whole = () => {
  const ends = runs.filter(({ id }) => shown.has(id)).map((run) => (run.steps - 1) / unit(run));
  const recorded = byEpoch() ? [] : curves.map(({ steps }) => steps.at(-1));
  return [0, Math.max(1 / Math.max(1, ...runs.map(unit)), ...ends, ...recorded)];
};

const handlers = { onZoom: zoom, onWhole: showWhole };
const showRuns = runsPanel($("runs"), {
  onToggle: (id) => {
    if (!shown.delete(id)) shown.add(id);
    refresh();
  },
});
const showSlots = drawingsPanel($("slots"), SLOTS);
const showPredictions = drawingsPanel($("predictions"), PREDICTIONS);
const showClasses = classesPanel($("classes"));
const resources = resourcesPanel($("resources"), handlers);
const cards = new Map();
const undrawn = element("p", { class: "note" });

const draw = () => {
  const visible = shownRuns();
  const view = { range, whole: whole(), logLoss: controls.logLoss.checked };
  const all = chartsFor(new Set(visible.flatMap(({ series }) => Object.keys(series.columns))));
  const charts = all.slice(0, MOST_CHARTS);
  for (const [id, { remove }] of cards) {
    if (cards.size <= MOST_CHARTS || charts.some((chart) => chart.id === id)) continue;
    remove();
    cards.delete(id);
  }
  for (const chart of charts) {
    if (cards.has(chart.id)) continue;
    cards.set(chart.id, { chart, ...chartCard(chart, handlers) });
    const order = charts.map(({ id }) => cards.get(id)?.card).filter((card) => card !== undefined);
    $("charts").append(...order, undrawn);
  }
  undrawn.textContent = all.length > charts.length
    ? `${all.length - charts.length} more metrics are not drawn.`
    : "";
  for (const { chart, show } of cards.values()) {
    const lines = linesOf(chart, visible, byEpoch() ? [] : curves);
    show(lines.map((line) => ({ ...line, x: line.table.x })), view);
  }
  showSlots(visible);
  showPredictions(visible);
  showClasses(visible);
  resources.show(visible, view);
};

// --- What is asked for ---

const withEffective = ({ columns, smooth, ...rest }) => {
  const add = (all) => {
    const entropy = bare(all).prototype_entropy;
    const effective = entropy?.map((nats) => nats === null ? null : Math.exp(nats));
    return bare(entropy === undefined ? all : { ...all, effective_prototypes: effective });
  };
  return { ...rest, columns: add(columns), smooth: add(smooth) };
};

/** Fetches the curves of the shown runs, where the run or the request has changed. */
const update = async () => {
  const wanted = runs.filter(({ id }) => shown.has(id));
  const asked = await Promise.allSettled(wanted.map(async (run) => {
    const stretch = range === null
      ? {}
      : { from: Math.floor(range[0] * unit(run)), to: Math.ceil(range[1] * unit(run)) };
    const query = { run: run.id, points: POINTS, ...stretch };
    const question = JSON.stringify([query, controls.smoothing.value, controls.axis.value, run.version]);
    if (fetched.get(run.id)?.question === question) return;
    const [series, times] = await Promise.all([
      ask("/series", { ...query, smoothing: controls.smoothing.value }),
      ask("/times", { ...query, points: 300 }),
    ]);
    if (series === undefined || times === undefined) return;
    const data = {
      series: { ...withEffective(series), x: xOf(series.steps, run) },
      times: { ...times, columns: bare(times.columns) },
      timesX: xOf(times.steps, run),
    };
    fetched.set(run.id, { question, data });
  }));
  draw(); // also where a run gives no answer
  const failed = asked.find(({ status }) => status === "rejected");
  if (failed !== undefined) throw failed.reason;
};

let working = Promise.resolve();
const refresh = () => {
  showRuns(runs, shown);
  working = working.then(update).catch(lost);
  return working;
};

const lost = (error) => {
  connection.className = "lost";
  connection.textContent = error instanceof Unanswered
    ? "The server does not answer: what you see is how things were. slotcon watch starts it again."
    : `Not all can be shown: ${error.message}`;
};

/** Forgets runs that are there no more, and shows new ones while there are few. */
const meet = () => {
  const ids = runs.map(({ id }) => id);
  for (const one of [known, shown, fetched]) {
    for (const id of one.keys()) if (!ids.includes(id)) one.delete(id);
  }
  for (const { id, steps, problem } of runs) {
    if (known.has(id)) continue;
    if (shown.size < 8 && (steps > 0 || problem === null)) shown.add(id);
    known.add(id);
  }
};

const poll = async () => {
  runs = await ask("/runs");
  meet();
  const going = runs.map(({ id, version }) => `${id} ${version}`).join();
  connection.className = "";
  connection.textContent = "";
  showRuns(runs, shown);
  if (going !== poll.seen) await refresh();
  poll.seen = going;
};

const loop = async () => {
  const start = performance.now();
  await poll().catch(lost);
  const took = performance.now() - start;
  setTimeout(loop, Math.max(document.hidden ? 5 * EVERY : EVERY, 3 * took));
};

// --- What the reader chooses ---

const SETTINGS = ["smoothing", "axis", "theme"];
const remember = () => {
  try {
    for (const name of SETTINGS) localStorage.setItem(name, controls[name].value);
  } catch {
    // the browser stores nothing
  }
};
const recall = () => {
  try {
    for (const name of SETTINGS) {
      const value = localStorage.getItem(name);
      if ([...controls[name].options].some((option) => option.value === value)) controls[name].value = value;
    }
  } catch {
    // the browser stores nothing
  }
};

const system = matchMedia("(prefers-color-scheme: dark)");
const applyTheme = () => {
  const isDark = controls.theme.value === "auto" ? system.matches : controls.theme.value === "dark";
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  cards.forEach(({ redraw }) => redraw());
  resources.redraw();
};
const choose = (name, value) => {
  controls[name].value = value;
  controls[name].dispatchEvent(new Event("change", { bubbles: true }));
};
const next = (name) => {
  const select = controls[name];
  choose(name, select.options[(select.selectedIndex + 1) % select.options.length].value);
};

$("controls").addEventListener("submit", (event) => event.preventDefault());
$("controls").addEventListener("change", ({ target }) => {
  remember();
  if (target.name === "theme") applyTheme();
  if (target.name === "axis") return showWhole();
  refresh();
});
system.addEventListener("change", () => {
  applyTheme();
  draw();
});
$("whole").addEventListener("click", showWhole);
$("help").addEventListener("click", () => $("keys").showModal());

const scaled = (factor) => {
  const [low, high] = range ?? whole();
  const [middle, half] = [(low + high) / 2, (high - low) / 2 * factor];
  zoom(middle - half, middle + half);
};
const moved = (share) => {
  if (range === null) return;
  const [low, high] = whole();
  const width = range[1] - range[0];
  const from = Math.min(Math.max(range[0] + share * width, low), high - width);
  zoom(from, from + width);
};
const KEYS = {
  "0": showWhole,
  "+": () => scaled(0.5),
  "=": () => scaled(0.5),
  "-": () => scaled(2),
  ArrowLeft: () => moved(-0.25),
  ArrowRight: () => moved(0.25),
  s: () => next("smoothing"),
  e: () => next("axis"),
  d: () => next("theme"),
  l: () => controls.logLoss.click(),
  "?": () => $("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if (
    target instanceof HTMLSelectElement || (target instanceof HTMLInputElement && target.type === "range")
  ) return;
  const place = Number(key) - 1;
  if (place >= 0 && place < runs.length) {
    if (!shown.delete(runs[place].id)) shown.add(runs[place].id);
    refresh();
  } else if (Object.hasOwn(KEYS, key)) KEYS[key]();
  else return;
  event.preventDefault();
});

recall();
applyTheme();
curves = (await ask("/curves").catch(() => []) ?? []).map((curve) => ({ ...curve, x: curve.steps }));
loop();
