/**
 * The classes of one's own label maps, as a small YAML file lists them; the first is number 0:
 *
 *     classes:
 *       - background
 *       - { name: road, color: "#804080" }
 *       - { name: tree, color: [107, 142, 35] }
 *     ignored: ["#e0e0c0"]
 *
 * Colours show predictions. Where label maps are pictures of colours, they also say what a colour means; those listed as
 * `ignored` count nowhere.
 */
import { Effect } from "effect";
import { LineCounter, parseDocument } from "yaml";
import { isObject, shown } from "../../files/format_error.ts";
import { readRegularFile } from "../../files/regular_file.ts";
import { IGNORED, MOST_CLASSES } from "./label_source.ts";
import { type SegmentationClass, SegmentationSetError } from "./segmentation_set.ts";

/** What a file of classes says. */
export interface ClassFile {
  /** The classes, in the order of their numbers. Those without a colour in the file have one of their own. */
  readonly classes: readonly SegmentationClass[];
  /** The class, or `IGNORED`, of each colour in the file, r | g << 8 | b << 16; null where it has none. */
  readonly colors: ReadonlyMap<number, number> | null;
}

type Color = SegmentationClass["color"];

/** Reads a file of classes. Fails with a `SegmentationSetError` that says which entry is wrong. */
export const readClassFile: (path: string) => Effect.Effect<ClassFile, SegmentationSetError> = Effect
  .fnUntraced(function* (path) {
    const refuse = (reason: string) => new SegmentationSetError({ subject: path, reason });
    const bytes = yield* Effect.tryPromise({
      try: () => readRegularFile(path, { largest: LARGEST }),
      catch: (error) => refuse(`${(error as Error).message}; expected ${EXPECTED}`),
    });
    return yield* Effect.try({
      try: () => parsed(new TextDecoder().decode(bytes)),
      catch: (error) => refuse((error as Error).message),
    });
  });

const LARGEST = 2 ** 20;
const EXPECTED = `a YAML file of classes such as "classes: [background, road]"`;

const parsed = (text: string): ClassFile => {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [error] = document.errors;
  if (error !== undefined) {
    throw new Error(`line ${lines.linePos(error.pos[0]).line} is no YAML: ${error.message}`);
  }
  const file: unknown = document.toJS({ maxAliasCount: 100 });
  const { classes: entries, ignored = [], ...others } = isObject(file) ? file as Record<string, unknown> : {};
  if (!Array.isArray(entries) || entries.length === 0) {
    throw new Error(`it lists no classes: expected ${EXPECTED}`);
  }
  if (entries.length > MOST_CLASSES) {
    throw new Error(`it lists ${entries.length} classes, at most ${MOST_CLASSES} are possible`);
  }
  const [other] = Object.keys(others);
  if (other !== undefined) throw new Error(`it has "${other}", expected "classes" and perhaps "ignored"`);
  if (!Array.isArray(ignored)) {
    throw new Error(`its "ignored" is ${shown(ignored)}, expected a list of colours`);
  }

  const found = entries.map(classOf);
  const colors = new Map<number, number>();
  const add = (color: Color, label: number, whose: string) => {
    const word = color[0] | color[1] << 8 | color[2] << 16;
    if (colors.has(word)) throw new Error(`${whose} has the colour of another: ${hex(color)}`);
    colors.set(word, label);
  };
  const names = new Set<string>();
  for (const [i, { name, color }] of found.entries()) {
    if (names.has(name)) throw new Error(`two of its classes are called ${shown(name)}`);
    names.add(name);
    if (color !== null) add(color, i, `class ${shown(name)}`);
  }
  ignored.forEach((value, i) =>
    add(colorOf(value, `entry ${i + 1} of "ignored"`), IGNORED, `entry ${i + 1} of "ignored"`)
  );
  return {
    classes: found.map(({ name, color }, i) => ({ name, color: color ?? classColor(i) })),
    colors: colors.size === 0 ? null : colors,
  };
};

const classOf = (entry: unknown, i: number): { readonly name: string; readonly color: Color | null } => {
  const fields = isObject(entry) ? entry as Record<string, unknown> : { name: entry };
  const { name, color = null, ...others } = fields;
  const [other] = Object.keys(others);
  if (other !== undefined) throw new Error(`class ${i} has "${other}", expected a name and perhaps a color`);
  if (typeof name !== "string" && typeof name !== "number" || name === "") {
    throw new Error(`class ${i} has the name ${shown(name)}, expected text`);
  }
  return { name: String(name), color: color === null ? null : colorOf(color, `class ${i}`) };
};

const colorOf = (value: unknown, whose: string): Color => {
  if (typeof value === "string" && /^#[0-9a-f]{6}$/i.test(value)) return fromHex(value);
  if (
    Array.isArray(value) && value.length === 3 &&
    value.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255)
  ) return value as unknown as Color;
  const found = Array.isArray(value) ? JSON.stringify(value) : shown(value);
  throw new Error(`${whose} has the colour ${found}, expected "#rrggbb" or [red, green, blue] from 0 to 255`);
};

/** The colour that is written as #rrggbb. */
export const fromHex = (text: string): Color => {
  const word = parseInt(text.slice(1), 16);
  return [word >> 16, word >> 8 & 255, word & 255];
};

const hex = (color: Color) => `#${color.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;

/** The colour of a class that has none of its own: that of PASCAL VOC's palette at `i`, black at 0. */
export const classColor = (i: number): Color => {
  const color: [number, number, number] = [0, 0, 0];
  for (let bit = 7; i > 0; bit--, i >>= 3) {
    for (let c = 0; c < 3; c++) color[c] |= (i >> c & 1) << bit;
  }
  return color;
};
