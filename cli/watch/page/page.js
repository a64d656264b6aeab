/** The page: polls the server for the state of the runs and shows what has changed. */
import { chartCard, chartsFor, linesOf } from "./charts.js";
import { resourcesPanel, runsPanel, slotsPanel } from "./panels.js";

const EVERY = 1000; // milliseconds between two requests
const POINTS = 1200; // per curve

const $ = (id) => document.getElementById(id);
const controls = $("controls").elements;
const connection = $("connection");

let runs = [];
let curves = [];
let range = null; // of x; null: all
const shown = new Set();
const known = new Set(); // runs that the page has shown before
const fetched = new Map(); // the curves of each run, with the request that they answer

const ask = async (path, parameters = {}) => {
  const query = new URLSearchParams(parameters);
  const response = await fetch(`${path}?${query}`);
  if (!response.ok) throw new Error(await response.text());
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
const showSlots = slotsPanel($("slots"));
const resources = resourcesPanel($("resources"), handlers);
const cards = new Map();

const draw = () => {
  const visible = shownRuns();
  const view = { range, whole: whole(), logLoss: controls.logLoss.checked };
  const charts = chartsFor(new Set(visible.flatMap(({ series }) => Object.keys(series.columns))));
  for (const chart of charts) {
    if (cards.has(chart.id)) continue;
    cards.set(chart.id, { chart, ...chartCard(chart, handlers) });
    const order = charts.map(({ id }) => cards.get(id)?.card).filter((card) => card !== undefined);
    $("charts").append(...order);
  }
  for (const { chart, show } of cards.values()) {
    const lines = linesOf(chart, visible, byEpoch() ? [] : curves);
    show(lines.map((line) => ({ ...line, x: line.table.x })), view);
  }
  showSlots(visible);
  resources.show(visible, view);
};

// --- What is asked for ---

const withEffective = ({ columns, smooth, ...rest }) => {
  const add = (all) => {
    const entropy = all.prototype_entropy;
    return entropy === undefined ? all : {
      ...all,
      effective_prototypes: entropy.map((nats) => nats === null ? null : Math.exp(nats)),
    };
  };
  return { ...rest, columns: add(columns), smooth: add(smooth) };
};

/** Fetches the curves of the shown runs, where the run or the request has changed. */
const update = async () => {
  const wanted = runs.filter(({ id }) => shown.has(id));
  await Promise.all(wanted.map(async (run) => {
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
    const data = {
      series: { ...withEffective(series), x: xOf(series.steps, run) },
      times,
      timesX: xOf(times.steps, run),
    };
    fetched.set(run.id, { question, data });
  }));
  draw();
};

let working = Promise.resolve();
const refresh = () => {
  showRuns(runs, shown);
  working = working.then(update).catch(lost);
  return working;
};

const lost = () => {
  connection.className = "lost";
  connection.textContent =
    "The server does not answer: what you see is how things were. slotcon watch starts it again.";
};

const poll = async () => {
  runs = await ask("/runs");
  for (const { id } of runs) {
    if (known.has(id)) continue;
    if (known.size < 8) shown.add(id);
    known.add(id);
  }
  const going = runs.map(({ version }) => version).join();
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
curves = (await ask("/curves").catch(() => [])).map((curve) => ({ ...curve, x: curve.steps }));
loop();
