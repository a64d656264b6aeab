/** Pages of results: one HTML file each, without scripts, that loads nothing else. */
import { Effect } from "effect";
import sharp from "sharp";
import type { Picture } from "../../data/images/decode_image.ts";
import { framed } from "../../pipeline/inference/framed.ts";
import type { Color } from "../../pipeline/visualize/colors.ts";

/** Text that is HTML and not to be escaped. */
export class Html {
  constructor(readonly text: string) {}
}

type Content = Html | string | number | readonly Content[];

/** HTML with values in it. Escapes all values that are not `Html`, such as names of files and classes. */
export const html = (strings: TemplateStringsArray, ...values: readonly Content[]): Html =>
  new Html(strings.map((part, i) => part + (i < values.length ? rendered(values[i]) : "")).join(""));

const rendered = (value: Content): string => {
  if (value instanceof Html) return value.text;
  if (typeof value === "string" || typeof value === "number") {
    return String(value).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
  }
  return value.map(rendered).join("");
};

/** An image as an element that is `side` pixels wide; the page holds its bytes. */
export const image = ({ width, height, rgb }: Picture, side: number, alt: string): Effect.Effect<Html> =>
  Effect.map(
    Effect.promise(() =>
      sharp(rgb, { raw: { width, height, channels: 3 } }).jpeg({ quality: 88 }).toBuffer()
    ),
    (bytes) =>
      html`<img src="data:image/jpeg;base64,${bytes.toString("base64")}" width="${side}" height="${
        Math.round(side * height / width)
      }" alt="${alt}">`,
  );

/** An image resized and cropped to a small square. */
export const thumbnail = (picture: Picture, side: number): Picture =>
  framed(picture, { resize: side, crop: side });

export const swatch = ([red, green, blue]: Color): Html =>
  html`<i class="swatch" style="background: rgb(${red} ${green} ${blue})"></i>`;

/** A number from 0 to 1 beside a bar of that length. */
export const bar = (value: number): Html =>
  html`<span class="bar"><b style="width: ${(100 * value).toFixed(1)}%"></b></span>${value.toFixed(3)}`;

/** A table; its first column holds text, the others numbers. */
export const pageTable = (head: readonly Content[], rows: readonly (readonly Content[])[]): Html =>
  html`
    <div class="wide">
      <table>
        <thead>
          <tr>${head.map((cell) => html`<th>${cell}</th>`)}</tr>
        </thead>
        <tbody>${rows.map((row) =>
          html`
            <tr>${row.map((cell, i) => i === 0 ? html`<th>${cell}</th>` : html`<td>${cell}</td>`)}</tr>
          `
        )}</tbody>
      </table>
    </div>
  `;

/** Images that belong together, with a caption. */
export const figure = (pictures: readonly Html[], caption: Content): Html =>
  html`
    <figure>
      <div>${pictures}</div>
      <figcaption>${caption}</figcaption>
    </figure>
  `;

export const gallery = (title: string, note: Content, figures: readonly Html[]): Html =>
  figures.length === 0 ? html`` : html`
    <h2>${title}</h2>
    <p>${note}</p>
    <div class="gallery">${figures}</div>
  `;

export const pageOf = (
  { title, facts, body }: {
    readonly title: string;
    readonly facts: readonly (readonly [name: string, text: string])[];
    readonly body: readonly Html[];
  },
): string =>
  html`
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta http-equiv="Content-Security-Policy"
          content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>${title}</title>
        <style>${STYLE}</style>
      </head>
      <body>
        <h1>${title}</h1>
        <dl>${facts.map(([name, text]) =>
          html`
            <dt>${name}</dt>
            <dd>${text}</dd>
          `
        )}</dl>
        ${body}
          </body>
    </html>
  `.text;

const STYLE = new Html(`
:root { color-scheme: light dark; --line: #8884; --faint: #8882; --bar: #3b82c4; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; }
dt { opacity: 0.65; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; }
td, tbody th { white-space: nowrap; }
th:first-child { text-align: left; }
tbody th { font-weight: normal; }
tbody tr.own { font-weight: 600; }
.bar { display: inline-block; width: 3.5rem; height: 0.6rem; margin-right: 0.5rem; background: var(--faint); }
.bar b { display: block; height: 100%; background: var(--bar); }
.swatch { display: inline-block; width: 0.8rem; height: 0.8rem; margin: 0 0.4rem 0 0; border-radius: 2px; vertical-align: -1px; }
.gallery { display: flex; flex-wrap: wrap; gap: 1.25rem; }
figure { margin: 0; width: min-content; max-width: 100%; }
figure div { display: flex; align-items: flex-start; gap: 3px; }
figure div > img { min-width: 0; height: auto; }
figure .small { display: grid; grid-template-columns: repeat(2, auto); align-content: start; gap: 4px; }
img { display: block; image-rendering: pixelated; background: var(--faint); }
figcaption { font-size: 0.85rem; overflow-wrap: anywhere; }
figcaption span { margin-right: 0.75rem; white-space: nowrap; }
`);
