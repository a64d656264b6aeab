/** The panels besides the curves: the list of runs, slot maps, and the use of time and memory. */
import { chartCard, element, runColor, short, swatch } from "./charts.js";

const duration = (seconds) => {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60 % 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600 % 24)} h`;
};
const bytes = (count) => {
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(3, Math.floor(Math.log2(Math.max(count, 1)) / 10));
  return `${(count / 1024 ** power).toPrecision(3)} ${units[power]}`;
};

/** How a run is doing or how it ended: as its folder says, or else as its steps tell. */
const stateOf = ({ status, steps, quietSeconds, plan, last }) => {
  const isDone = plan.lastStep !== undefined && steps >= plan.lastStep;
  const stepSeconds = (plan.batchSize ?? 1) / (last.images_per_second || 1);
  const isQuiet = quietSeconds > Math.max(20, 10 * stepSeconds);
  const guess = isDone ? "finished" : quietSeconds === null ? "no steps yet" : isQuiet ? "quiet" : "running";
  const quiet = `no step for ${duration(quietSeconds)}`;
  switch (status?.kind ?? guess) {
    case "running":
      return { text: isQuiet ? `running, ${quiet}` : "running", isRunning: true, isGood: !isQuiet };
    case "finished":
      return { text: "finished", isRunning: false, isGood: true };
    case "stopped":
      return { text: "stopped", isRunning: false, isGood: true };
    case "failed":
      return { text: `failed: ${status.reason}`, isRunning: false, isGood: false };
    case "killed":
      return { text: "killed, or its machine stopped", isRunning: false, isGood: false };
    case "quiet":
      return { text: quiet, isRunning: false, isGood: false };
    default:
      return { text: "no steps yet", isRunning: false, isGood: false };
  }
};

/** When a run ended, in the reader's words for a time. */
const endOf = (status) => status?.at === undefined ? "" : ` (${new Date(status.at).toLocaleString()})`;

/** The epoch of the last step and how many there will be, as the terminal has them. */
const epochsOf = ({ plan, last }) =>
  last.epoch === undefined
    ? "–"
    : `${short(last.epoch)} / ${short(Math.ceil(plan.lastStep / plan.stepsPerEpoch))}`;

/** The list of runs, in which they are chosen. */
export const runsPanel = (section, { onToggle }) => {
  const body = element("tbody");
  const names = ["Run", "", "Step", "Epoch", "Loss", "Images/s", "Left", "Device memory"];
  const heads = names.map((name) => element("th", { scope: "col" }, name));
  section.append(
    element(
      "div",
      { class: "card" },
      element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body),
    ),
  );
  const rows = new Map();
  let listed = ""; // the runs in the table

  const rowFor = (run, place) => {
    const box = element("input", { type: "checkbox", "data-run": run.name });
    box.addEventListener("change", () => onToggle(run.id));
    const label = element("label", {}, box, swatch(runColor(place)), run.name);
    if (place < 9) label.append(element("kbd", {}, String(place + 1)));
    const cells = names.slice(1).map(() => element("td"));
    const row = element("tr", {}, element("td", { title: run.name }, label), ...cells);
    body.append(row);
    return { box, cells };
  };

  return (runs, shown) => {
    const list = runs.map(({ id }) => id).join();
    if (list !== listed) {
      rows.clear();
      body.replaceChildren();
      runs.forEach((run, place) => rows.set(run.id, rowFor(run, place)));
      listed = list;
    }
    runs.forEach((run) => {
      const { box, cells } = rows.get(run.id);
      const { steps, plan, status, last, problem } = run;
      const state = stateOf(run);
      box.checked = shown.has(run.id);
      const bar = element("progress", {
        max: plan.lastStep ?? 1,
        value: steps,
        "aria-label": "share that is done",
      });
      const [about, step, epoch, loss, speed, left, memory] = cells;
      const text = problem === null ? state.text : steps === 0 ? problem : `${state.text}; ${problem}`;
      about.replaceChildren(...(plan.lastStep === undefined ? [] : [bar, " "]), text);
      about.title = text + endOf(status);
      about.className = problem === null && state.isGood ? "soft" : "warn";
      step.textContent = plan.lastStep === undefined ? String(steps) : `${steps} / ${plan.lastStep}`;
      epoch.textContent = epochsOf(run);
      loss.textContent = short(last.loss);
      speed.textContent = short(last.images_per_second);
      const missing = ((plan.lastStep ?? NaN) - steps) * plan.batchSize / last.images_per_second;
      left.textContent = state.isRunning ? duration(missing) : "–";
      memory.textContent = plan.deviceBytes === undefined ? "–" : bytes(plan.deviceBytes);
    });
  };
};

/** What rows of pictures show: slots of a pretraining run, or what a segmentor predicts. */
export const SLOTS = {
  at: "/slots",
  stepsOf: ({ slotMaps }) => slotMaps,
  title: "Slots of some pictures",
  label: "slots",
  given: [["pictures", "pictures of the data set"]],
  note:
    "What the teacher takes together. A colour stands for the same prototype in all pictures and at all steps of a run.",
};
export const PREDICTIONS = {
  at: "/predictions",
  stepsOf: ({ predictions }) => predictions,
  title: "Predictions for some validation pictures",
  label: "predicted",
  given: [["pictures", "validation pictures"], ["truth", "their labels"]],
  note: "A colour stands for the same class in all pictures; white is not labelled.",
};

/** Drawings of the same pictures, a row for each run, at the step of a slider: the newest one unless it was moved. */
export const drawingsPanel = (section, { at, stepsOf, title, label, given, note }) => {
  const slider = element("input", {
    type: "range",
    min: 0,
    max: 0,
    value: 0,
    "aria-label": `step of the row "${label}"`,
  });
  const told = element("output", { class: "soft" });
  const head = element("div", { class: "head" }, element("h2", {}, title));
  head.append(element("div", { class: "slider" }, slider, told));
  const rows = element("div");
  section.append(element("div", { class: "card" }, head, rows, element("p", { class: "note" }, note)));

  let all = []; // steps of which any run has drawings
  let follows = true;
  let runs = [];
  const images = new Map();

  const image = (key, alt) => {
    if (!images.has(key)) images.set(key, element("img", { alt, decoding: "async" }));
    return images.get(key);
  };
  const put = (img, source) => {
    if (img.getAttribute("src") !== source) img.setAttribute("src", source);
    return img;
  };
  const row = (name, img) =>
    element("div", { class: "row" }, element("span", { class: "name", title: name }, name), img);

  const draw = () => {
    const step = all[Number(slider.value)];
    told.textContent = step === undefined ? "" : `after ${step} steps`;
    rows.replaceChildren(...runs.flatMap((run, i) => {
      const { id, name } = run;
      const steps = stepsOf(run);
      const nearest = steps.findLast((each) => each <= step) ?? steps[0];
      const first = given.map(([which, alt]) =>
        row(which, put(image(`${which} ${id}`, alt), `${at}?run=${id}&step=${which}`))
      );
      const drawn = put(
        image(`drawn ${id}`, `the same, ${label} after ${nearest} steps`),
        `${at}?run=${id}&step=${nearest}`,
      );
      return [...(i === 0 ? first : []), row(runs.length > 1 ? name : label, drawn)];
    }));
    for (const key of images.keys()) if (!runs.some(({ id }) => key.endsWith(` ${id}`))) images.delete(key);
  };
  slider.addEventListener("input", () => {
    follows = Number(slider.value) === all.length - 1;
    draw();
  });

  return (shown) => {
    runs = shown.filter((run) => stepsOf(run).length > 0);
    section.hidden = runs.length === 0;
    const kept = all[Number(slider.value)];
    all = [...new Set(runs.flatMap(stepsOf))].sort((a, b) => a - b);
    slider.max = String(Math.max(0, all.length - 1));
    slider.value = String(follows ? all.length - 1 : Math.max(0, all.indexOf(kept)));
    draw();
  };
};

const OF_CLASS = "iou/";

/** The intersection over union of each class in the newest validation of each run, best classes first. */
export const classesPanel = (section) => {
  const head = element("tr");
  const body = element("tbody");
  const table = element("table", {}, element("thead", {}, head), body);
  const title = element("div", { class: "head" }, element("h2", {}, "IoU of each class, per cent"));
  section.append(element("div", { class: "card" }, title, table));
  return (shown) => {
    const newest = (run, name) => run.series.columns[name]?.findLast((value) => value !== null) ?? null;
    const names = [...new Set(shown.flatMap(({ series }) => Object.keys(series.columns)))]
      .filter((name) => name.startsWith(OF_CLASS));
    const runs = shown.filter((run) => names.some((name) => newest(run, name) !== null));
    section.hidden = runs.length === 0;
    const best = (name) => Math.max(...runs.map((run) => newest(run, name) ?? -1));
    head.replaceChildren(
      element("th", { scope: "col" }, "Class"),
      ...runs.map(({ name, place }) => element("th", { scope: "col" }, swatch(runColor(place)), name)),
    );
    body.replaceChildren(
      ...names.sort((a, b) => best(b) - best(a)).map((name) => {
        const cells = runs.map((run) => {
          const value = newest(run, name);
          const bar = element("progress", { max: 100, value: value ?? 0, "aria-hidden": "true" });
          return element("td", {}, bar, ` ${value === null ? "–" : value.toFixed(1)}`);
        });
        return element("tr", {}, element("td", {}, name.slice(OF_CLASS.length)), ...cells);
      }),
    );
  };
};

/** Stages of the device and phases of the host, in the order in which they are stacked from below. */
const STAGES = ["augment", "normalise", "forward", "backward", "update"];
const ACCOUNTS = {
  decode: "waits for pictures",
  submit: "submits",
  device: "waits for the device",
  sync: "waits for ranks",
  checkpoint: "saves",
  validate: "validates",
  report: "reports",
};
const MEMORY = {
  state: "parameters, statistics, momentum",
  activations: "activations",
  scratch: "scratch",
  batch: "batch",
  constants: "constants",
  slot_maps: "slots of the pictures above",
};

/** The use of time and memory by each run. */
export const resourcesPanel = (section, handlers) => {
  const cards = new Map();
  /** The card of this key, made if need be; its title may change. */
  const titled = (key, title, make) => {
    if (!cards.has(key)) {
      cards.set(key, make());
      section.append(cards.get(key).card);
    }
    cards.get(key).card.querySelector("h2").textContent = title;
    return cards.get(key);
  };
  const chart = (key, title, note) =>
    titled(key, title, () => chartCard({ id: key, title, stacked: true, note }, handlers));

  /** Shares of the wall time as stacked lines, the topmost first. */
  const stacked = (times, parts, x) => {
    const wall = times.steps.map((_, i) =>
      Object.keys(ACCOUNTS).reduce((sum, account) => sum + (times.columns[`host.${account}`]?.[i] ?? 0), 0)
    );
    const below = wall.map(() => 0);
    return parts.map(([column, label], place) => {
      const told = wall.map((all, i) => all > 0 ? (times.columns[column][i] ?? 0) / all : null);
      told.forEach((share, i) => below[i] += share ?? 0);
      return { table: times, x, values: [...below], told, label, paint: runColor(place), dash: [] };
    }).reverse();
  };

  const show = (runs, view) => {
    const used = new Set();
    for (const { id, name, times, timesX, plan } of runs) {
      const of = runs.length > 1 ? `: ${name}` : "";
      const has = (column) => times?.columns[column]?.some((seconds) => seconds > 0);
      const accounts = Object.entries(ACCOUNTS).map(([account, label]) => [`host.${account}`, label]);
      const present = accounts.filter(([column]) => has(column));
      if (present.length > 0) {
        const known = Object.keys(times.columns).filter((column) => column.startsWith("device."))
          .map((column) => column.slice("device.".length));
        const stages = [
          ...STAGES.filter((stage) => known.includes(stage)),
          ...known.filter((s) => !STAGES.includes(s)),
        ]
          .map((stage) => [`device.${stage}`, stage]);
        const key = `device ${id}`;
        const measured = stages.length > 0;
        const device = chart(
          key,
          `Device time${of}`,
          measured ? "Share of the wall time that the device spends on each stage; the rest it is idle." : "",
        );
        used.add(key);
        if (measured) device.show(stacked(times, stages, timesX), view);
        else if (!device.card.querySelector(".warn")) {
          device.card.append(
            element(
              "p",
              { class: "warn" },
              "Not measured: this adapter cannot time its work (no timestamp-query).",
            ),
          );
        }
        chart(
          `host ${id}`,
          `Time of the run's thread${of}`,
          "Waiting for the device is good: then nothing else holds it up.",
        )
          .show(stacked(times, present, timesX), view);
        used.add(`host ${id}`);
      }
      if (plan.memory !== undefined && plan.deviceBytes !== undefined) {
        const key = `memory ${id}`;
        used.add(key);
        titled(key, `Device memory${of}`, () => {
          const card = memoryCard(plan);
          return { card, redraw: () => {}, remove: () => card.remove() };
        });
      }
    }
    for (const [key, { remove }] of cards) {
      if (used.has(key)) continue;
      remove();
      cards.delete(key);
    }
  };
  return { show, redraw: () => cards.forEach(({ redraw }) => redraw()) };
};

const memoryCard = ({ memory, deviceBytes, device }) => {
  const parts = Object.entries(MEMORY).filter(([group]) => memory[group] > 0);
  const bar = element("div", { class: "bar", role: "img", "aria-label": "shares of the memory" });
  const key = element("ul", { class: "key" });
  parts.forEach(([group, label], place) => {
    const part = element("span");
    part.style.width = `${100 * memory[group] / deviceBytes}%`;
    part.style.background = `var(${runColor(place)})`;
    bar.append(part);
    key.append(
      element("li", {}, swatch(runColor(place)), ` ${label} `, element("b", {}, bytes(memory[group]))),
    );
  });
  const head = element("div", { class: "head" }, element("h2"));
  head.append(element("span", { class: "soft" }, `${bytes(deviceBytes)} on ${device ?? "the device"}`));
  const note =
    "Reserved before the first step, until the end of the run; the part without a colour is what sharing wastes.";
  return element("article", { class: "card" }, head, bar, key, element("p", { class: "note" }, note));
};
