/** Colours and names of the classes of pixels on a page. */
import { type Color, distinctColors } from "../../pipeline/visualize/colors.ts";
import { type Html, html, swatch } from "../pages/page.ts";

/** The colour of pixels without a label. */
export const UNKNOWN: Color = [128, 128, 128];

export interface ClassColors {
  readonly of: (place: number) => Color;
  /** The colour of a slot that is matched to the class of this number, or to none (−1). */
  readonly slot: (place: number, slot: number) => Color;
}

/**
 * Colours for classes and for slots that match none. `shown` are numbers of classes, the most frequent first, since the
 * first colours are the easiest to tell apart.
 */
export const classColors = (shown: readonly number[], slots = 0): ClassColors => {
  const colors = distinctColors(shown.length + slots);
  const own = new Map(shown.map((place, i) => [place, colors[i]]));
  return {
    of: (place) => own.get(place) ?? UNKNOWN,
    slot: (place, slot) => own.get(place) ?? colors[shown.length + slot],
  };
};

/** The numbers of the classes that cover most of a label map, at most four. */
export const mostPixels = (labels: ArrayLike<number>): number[] => {
  const counts = new Map<number, number>();
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] > 0) counts.set(labels[i] - 1, (counts.get(labels[i] - 1) ?? 0) + 1);
  }
  return [...counts].sort(([, a], [, b]) => b - a).slice(0, 4).map(([place]) => place);
};

export const legend = (places: readonly number[], names: readonly string[], colors: ClassColors): Html[] =>
  places.map((place) => html`<span>${swatch(colors.of(place))}${names[place]}</span>`);

/** The width in which an image of this width is shown; small ones are enlarged by a whole factor. */
export const shownSide = (width: number): number =>
  width >= 160 ? Math.min(width, 224) : width * Math.floor(160 / width);
