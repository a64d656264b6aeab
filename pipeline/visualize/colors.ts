/** Colours of slots. */

/** Red, green and blue, 0 … 255. */
export type Color = readonly [number, number, number];

/**
 * `count` colours that can be told apart; the first ones are always the same and furthest apart. Successive hues
 * differ by the golden angle, so that no number of them leaves a gap; lightness alternates.
 */
export const distinctColors = (count: number): Color[] =>
  Array.from({ length: count }, (_, i) => {
    const hue = 2 * Math.PI * (0.88 + i * 0.6180339887);
    return fromOklab(i % 2 === 0 ? 0.82 : 0.55, 0.2 * Math.cos(hue), 0.2 * Math.sin(hue));
  });

/** Oklab (Ottosson, 2020: a colour space in which equal steps look equal) to the nearest colour that a screen has. */
const fromOklab = (lightness: number, a: number, b: number): Color => {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const screen = (linear: number) => {
    const value = Math.min(Math.max(linear, 0), 1);
    return Math.round(255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
  };
  return [
    screen(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    screen(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    screen(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
};
