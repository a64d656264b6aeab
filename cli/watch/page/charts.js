/** The charts of the page: which curves share one, and how they are drawn. */

const { uPlot } = globalThis; // loaded by another script element, before this one

/** The metrics that share a chart, by their names in metrics.jsonl. */
const CHARTS = [
  { id: "loss", title: "Loss", keys: { loss: "loss" }, wide: true, isLoss: true },
  {
    id: "parts",
    title: "Its parts",
    keys: {
      ...{ loss_group: "grouping", loss_slot: "slot contrast" },
      ...{ loss_head: "head", loss_aux: "auxiliary head" },
    },
    isLoss: true,
  },
  {
    id: "validation",
    title: "Validation, per cent",
    keys: { val_miou: "mIoU", val_macc: "mAcc", val_aacc: "aAcc" },
    exact: true,
  },
  {
    id: "accuracy",
    title: "Accuracy in training, per cent",
    keys: { acc_head: "head", acc_aux: "auxiliary head" },
  },
  {
    id: "prototypes",
    title: "Prototypes in use",
    keys: { live_prototypes: "live", effective_prototypes: "effective, e^entropy" },
    note:
      "How many the teacher uses in a batch, and how many, used alike, would be as mixed. Both fall in a collapse.",
    from0: true,
  },
  { id: "grad", title: "Gradient norm", keys: { grad_norm: "gradient" }, log: true },
  { id: "param", title: "Parameter norm", keys: { param_norm: "parameters" }, exact: true },
  { id: "lr", title: "Learning rate", keys: { lr: "learning rate" }, exact: true },
  { id: "scale", title: "Loss scale", keys: { loss_scale: "scale" }, log: true, exact: true },
  {
    id: "skipped",
    title: "Steps skipped",
    keys: { skipped_steps: "in all" },
    exact: true,
    mayBeNought: true,
  },
  { id: "momentum", title: "Teacher momentum", keys: { teacher_momentum: "momentum" }, exact: true },
  {
    id: "speed",
    title: "Images per second",
    keys: { images_per_second: "images/s" },
    from0: true,
    exact: true,
  },
  {
    id: "positives",
    title: "Slots that both views share",
    keys: { positives12: "1 → 2", positives21: "2 → 1" },
    from0: true,
  },
  {
    id: "terms",
    title: "Terms of the loss",
    keys: {
      ...{ group12: "group 1 → 2", group21: "group 2 → 1" },
      ...{ contrast12: "contrast 1 → 2", contrast21: "contrast 2 → 1" },
    },
    isLoss: true,
  },
  {
    id: "bad",
    title: "Pictures replaced",
    keys: { bad_images: "in the batch" },
    from0: true,
    exact: true,
    mayBeNought: true,
  },
];

/** Metrics without a chart. */
const UNDRAWN = ["epoch", "prototype_entropy"];

/** The charts for these metrics: the known charts that have any of them, and one for each other metric. */
export const chartsFor = (names) => {
  const known = CHARTS.filter(({ keys }) => Object.keys(keys).some((key) => names.has(key)));
  const drawn = new Set([...UNDRAWN, ...CHARTS.flatMap(({ keys }) => Object.keys(keys))]);
  const others = [...names].filter((name) => !drawn.has(name) && !name.startsWith("iou/")).sort();
  return [...known, ...others.map((name) => ({ id: `metric ${name}`, title: name, keys: { [name]: name } }))];
};

const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const runColor = (index) => `--run-${index % 8}`;

/** A number as text that is short to read. */
export const short = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
};

/** An object with nothing in it but what it was given: names from files may be those that all objects have. */
export const bare = (object) => Object.assign(Object.create(null), object);

export const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

/** A sample of a line, for legends. */
const sample = ({ paint, dash, width }) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const attributes = { x1: 0, x2: 18, y1: 4, y2: 4, stroke: color(paint), "stroke-width": width ?? 2 };
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
  if (dash?.length) line.setAttribute("stroke-dasharray", dash.map((length) => length * 0.7).join(" "));
  svg.append(line);
  return svg;
};

/**
 * The lines of a chart. With one run, colours tell metrics apart; with several, colours tell runs apart and dashes
 * metrics. `runs` have `series`, `name` and `place`; `curves` are recorded losses.
 */
export const linesOf = (chart, runs, curves) => {
  const keys = Object.entries(chart.keys);
  const isDrawn = (values) =>
    values !== undefined && (!chart.mayBeNought || values.some((value) => value > 0));
  const lines = runs.flatMap(({ series, name, place }) =>
    keys.filter(([key]) => isDrawn(series.columns[key])).map(([key, label], i) => ({
      table: series,
      values: series.columns[key],
      smooth: chart.exact ? undefined : series.smooth[key],
      label: [...(runs.length > 1 ? [name] : []), ...(keys.length > 1 || runs.length === 1 ? [label] : [])]
        .join(" "),
      paint: runColor(runs.length > 1 ? place : i),
      dash: runs.length > 1 ? DASHES[i % DASHES.length] : [],
    }))
  );
  const recorded = chart.id !== "loss" ? [] : curves.map((curve, i) => ({
    table: curve,
    values: curve.columns.loss,
    label: curve.name,
    paint: runColor(7 - i),
    dash: [8, 5],
    width: 2.5,
  }));
  return [...lines, ...recorded];
};

/** A card with a chart that lives until `remove`; `show` gives it lines, `redraw` new colours. */
export const chartCard = (chart, { onZoom, onWhole }) => {
  const legend = element("ul");
  const plot = element("div", { class: "plot", role: "img" });
  const title = element("h2", {}, chart.title);
  const card = element("article", { class: chart.wide ? "card wide" : "card", "data-chart": chart.id });
  card.append(element("div", { class: "head" }, title, legend), plot);
  if (chart.note) card.append(element("p", { class: "note" }, chart.note));

  let drawn = null; // the uPlot object
  let shape = ""; // of the lines that it was made for
  let lines = [];
  let view = { range: null, log: false };
  let span = [0, 1];

  const valueAt = ({ x, values }, at) => {
    if (at === null) return values.findLast((value) => value !== null);
    let [low, high] = [0, x.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (x[middle] < at) low = middle + 1;
      else high = middle;
    }
    const near = low > 0 && (low === x.length || at - x[low - 1] < x[low] - at) ? low - 1 : low;
    return values[near];
  };
  const tell = (at) => {
    const unit = chart.stacked ? (value) => `${(100 * (value ?? 0)).toFixed(value < 0.1 ? 1 : 0)} %` : short;
    legend.querySelectorAll("b").forEach((bold, i) => {
      const line = lines[i];
      bold.textContent = unit(valueAt({ x: line.x, values: line.told ?? line.smooth ?? line.values }, at));
    });
  };

  const clear = () => {
    drawn?.destroy();
    [drawn, shape] = [null, ""];
    legend.replaceChildren();
  };

  const make = () => {
    drawn?.destroy();
    const stroke = () => color("--soft");
    const axis = {
      stroke,
      grid: { stroke: () => color("--line"), width: 1 },
      ticks: { show: false },
      size: 26,
    };
    const decorate = ({ paint, dash, width }, more) => ({
      stroke: () => color(paint),
      dash,
      width: width ?? 1.5,
      spanGaps: true,
      points: { show: (u) => u.data[0].length < 2 },
      ...more,
    });
    const series = lines.flatMap((line) => {
      if (chart.stacked) return [decorate(line, { fill: () => color(line.paint), width: 0, dash: [] })];
      if (!line.smooth) return [decorate(line, {})];
      return [decorate(line, { alpha: 0.28, width: 1 }), decorate(line, { width: 2 })];
    });
    drawn = new uPlot(
      {
        width: plot.clientWidth || 400,
        height: plot.clientHeight || 190,
        padding: [8, 10, 0, 0],
        legend: { show: false },
        scales: {
          x: { time: false, range: () => view.range ?? span },
          y: {
            distr: view.log ? 3 : 1,
            ...(chart.stacked ? { range: () => [0, 1] } : {}),
            ...(chart.from0 ? { range: (_, __, high) => [0, high > 0 ? high * 1.05 : 1] } : {}),
          },
        },
        axes: [axis, {
          ...axis,
          size: 56,
          // On a logarithmic axis only powers of ten get a grid line: all of them would hide the curves.
          grid: {
            ...axis.grid,
            filter: (_, ticks) =>
              ticks.map((tick) => view.log && !Number.isInteger(Math.log10(tick)) ? null : tick),
          },
          values: (_, ticks) =>
            ticks.map((tick) =>
              tick === null ? "" : chart.stacked ? `${Math.round(100 * tick)} %` : short(tick)
            ),
        }],
        series: [{}, ...series],
        cursor: {
          y: false,
          points: { show: false },
          drag: { x: true, y: false, setScale: false },
          sync: { key: "runs", filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
          bind: { dblclick: () => () => onWhole() },
        },
        hooks: {
          setSelect: [(u) => {
            const { left, width } = u.select;
            if (width < 4) return;
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            onZoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
          }],
          setCursor: [(u) => tell(u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null)],
        },
      },
      dataOf(),
      plot,
    );
  };

  const positive = (values) => view.log ? values.map((value) => value > 0 ? value : null) : values;
  const dataOf = () => {
    const tables = lines.map((
      { x, values, smooth },
    ) => [x, positive(values), ...(smooth ? [positive(smooth)] : [])]);
    return tables.length === 0 ? [[]] : uPlot.join(tables);
  };

  const observer = new ResizeObserver(() =>
    drawn?.setSize({ width: plot.clientWidth, height: plot.clientHeight })
  );
  observer.observe(plot);

  return {
    card,
    /** Draws lines over their `x`, in the range of x that is shown out of the range that has data. */
    show: (given, { range, whole, logLoss }) => {
      lines = given;
      span = whole;
      const every = lines.flatMap(({ values }) => values);
      const log = !chart.stacked && (chart.log || (chart.isLoss && logLoss)) &&
        every.some((value) => value > 0);
      view = { range, log };
      const next = JSON.stringify([
        log,
        lines.map(({ label, paint, dash, smooth }) => [label, paint, dash, !!smooth]),
      ]);
      card.hidden = lines.length === 0;
      if (card.hidden) return clear();
      const points = Math.max(...lines.map(({ x }) => x.length));
      const [from, to] = range ?? span;
      plot.setAttribute(
        "aria-label",
        `${title.textContent}: ${points} points from ${short(from)} to ${short(to)}`,
      );
      if (next !== shape) {
        shape = next;
        legend.replaceChildren(...lines.map((line) =>
          element(
            "li",
            {},
            chart.stacked ? swatch(line.paint) : sample(line),
            lines.length > 1 || line.label !== chart.title.toLowerCase() ? line.label : "",
            element("b"),
          )
        ));
        make();
      } else drawn.setData(dataOf());
      tell(null);
    },
    redraw: () => {
      shape = "";
    },
    remove: () => {
      clear();
      observer.disconnect();
      card.remove();
    },
  };
};

export const swatch = (paint) => {
  const box = element("span", { class: "swatch" });
  box.style.background = `var(${paint})`;
  return box;
};
