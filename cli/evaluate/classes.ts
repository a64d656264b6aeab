/** Classes of pixels on a page: their colours and names. */
import { type Color, distinctColors } from "../../pipeline/visualize/colors.ts";
import { type Html, html, swatch } from "../pages/page.ts";

/** Where nobody knows the class. */
export const UNKNOWN: Color = [128, 128, 128];

export interface ClassColors {
  readonly of: (place: number) => Color;
  /** Of a slot that is matched to the class at `place`, or to none (−1). */
  readonly slot: (place: number, slot: number) => Color;
}

/** Colours for classes (by their places, the most frequent first, which are told apart best) and for further slots. */
export const classColors = (shown: readonly number[], slots = 0): ClassColors => {
  const colors = distinctColors(shown.length + slots);
  const own = new Map(shown.map((place, i) => [place, colors[i]]));
  return {
    of: (place) => own.get(place) ?? UNKNOWN,
    slot: (place, slot) => own.get(place) ?? colors[shown.length + slot],
  };
};

/** The places of the classes that cover most of a map of labels, at most four. */
export const mostPixels = (labels: ArrayLike<number>): number[] => {
  const counts = new Map<number, number>();
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] > 0) counts.set(labels[i] - 1, (counts.get(labels[i] - 1) ?? 0) + 1);
  }
  return [...counts].sort(([, a], [, b]) => b - a).slice(0, 4).map(([place]) => place);
};

export const legend = (places: readonly number[], names: readonly string[], colors: ClassColors): Html[] =>
  places.map((place) => html`<span>${swatch(colors.of(place))}${names[place]}</span>`);

/** How large a picture of this width is shown: small ones by whole factors. */
export const shownSide = (width: number): number =>
  width >= 160 ? Math.min(width, 224) : width * Math.floor(160 / width);
