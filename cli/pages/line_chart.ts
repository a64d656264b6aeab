import { type Html, html } from "./page.ts";

export interface Curve {
  readonly name: string;
  /** One value for each step. */
  readonly values: readonly number[];
}

const WIDTH = 360, HEIGHT = 180, LEFT = 46, BOTTOM = 22, TOP = 8, RIGHT = 8;
const COLORS = ["#2563c9", "#d1541b", "#2a9a5b"];

/** Curves over the steps of a run, smoothed a little, as an SVG. */
export const lineChart = (title: string, curves: readonly Curve[]): Html => {
  const smooth = curves.map(({ values }) => evened(values, Math.max(1, Math.round(values.length / 50))));
  const steps = Math.max(...curves.map(({ values }) => values.length));
  const { low, high, ticks } = scale(smooth.flat());
  const x = (step: number) => LEFT + (WIDTH - LEFT - RIGHT) * step / Math.max(1, steps - 1);
  const y = (value: number) => TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
  const path = (values: readonly number[]) =>
    values.map((value, step) => `${step === 0 ? "M" : "L"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join(
      "",
    );
  return html`
    <figure class="chart">
      <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img"
        style="font: 11px system-ui, sans-serif; fill: currentColor"
        aria-label="${title}">
        ${ticks.map((tick) =>
          html`
            <path d="M${LEFT} ${y(tick).toFixed(1)}H${WIDTH - RIGHT}" class="grid" />
            <text x="${LEFT - 6}" y="${(y(tick) + 4).toFixed(1)}" text-anchor="end">${Number(
              tick.toPrecision(6),
            )}</text>
          `
        )}
        <text x="${LEFT}" y="${HEIGHT - 5}">0</text>
        <text x="${WIDTH - RIGHT}" y="${HEIGHT - 5}" text-anchor="end">${steps} steps</text>
        ${smooth.map((values, i) =>
          html`
            <path d="${path(values)}" fill="none" stroke="${COLORS[i]}" stroke-width="1.8" />
          `
        )}
      </svg>
      <figcaption>${title}: ${curves.map(({ name }, i) =>
        html`<span><i class="swatch" style="background: ${COLORS[i]}"></i>${name}</span>`
      )}</figcaption>
    </figure>
  `;
};

/** The moving average over the last `width` values. */
const evened = (values: readonly number[], width: number): number[] => {
  let sum = 0;
  return values.map((value, i) => {
    sum += value - (i >= width ? values[i - width] : 0);
    return sum / Math.min(i + 1, width);
  });
};

/** Round numbers for an axis that covers all values. */
const scale = (values: readonly number[]) => {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const rough = (most - least || Math.abs(most) || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough)!;
  const low = Math.floor(least / step) * step, high = Math.max(Math.ceil(most / step) * step, low + step);
  const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
  return { low, high, ticks };
};
