/** A page of pictures and their slots in one HTML file, which needs nothing else: no server, no network. */
import { createHash } from "node:crypto";
import { deflateRawSync } from "node:zlib";
import { Effect } from "effect";
import sharp from "sharp";
import type { Picture } from "../../data/images/decode_image.ts";
import { scaled, scaledMap } from "../inference/scaled.ts";
import type { Color } from "./colors.ts";
import template from "./page.html" with { type: "text" };
import type { Neighbor } from "./retrieval.ts";

export interface PagePrototype {
  readonly number: number;
  readonly color: Color;
  /** In how many pictures it wins somewhere, and what share of them all. */
  readonly wonIn: number;
  readonly share: number;
  /** By their places among the page's pictures, best first; nothing on a page of pictures alone. */
  readonly nearest: readonly Neighbor[];
}

export interface PageContents {
  readonly title: string;
  readonly facts: string;
  /** How many pictures `wonIn` refers to. */
  readonly looked: number;
  readonly prototypes: readonly PagePrototype[];
  readonly pictures: readonly PagePicture[];
}

/** A picture as the page holds it, in JSON. */
export type PagePicture = Uint8Array;

/** Bytes of all the pictures on a page, at most; base64 makes a third more of it. */
const ROOM = 20e6;
/** Bytes that a pixel of a photograph takes up as a good JPEG. */
const BYTES_PER_PIXEL = 0.3;
const QUALITIES = [88, 80, 70, 55, 40, 25];

/**
 * A picture of `count` on a page, with the prototype that wins each pixel: the more there are, the smaller and the more
 * compressed, so that the page stays below some 30 MB.
 */
export const pagePicture = Effect.fnUntraced(function* (
  name: string,
  picture: Picture,
  segments: ArrayLike<number>,
  count: number,
) {
  const room = ROOM / count;
  const shrink = Math.min(1, Math.sqrt(room / BYTES_PER_PIXEL / (picture.width * picture.height)));
  const width = Math.max(1, Math.round(shrink * picture.width));
  const height = Math.max(1, Math.round(shrink * picture.height));
  const { rgb } = yield* scaled(picture, { width, height });

  const map = scaledMap(segments, picture, { width, height });
  const deflated = deflateRawSync(new Uint8Array(map.buffer));

  let jpeg = new Uint8Array();
  for (const quality of QUALITIES) {
    jpeg = yield* Effect.promise(() =>
      sharp(rgb, { raw: { width, height, channels: 3 } }).jpeg({ quality, mozjpeg: true }).toBuffer()
    );
    if (jpeg.length + deflated.length <= room) break;
  }
  return json({ name, width, height, jpeg: jpeg.toBase64(), map: deflated.toBase64() }) as PagePicture;
});

/** The page, in pieces to be written one after the other. */
export const page = ({ pictures, prototypes, ...about }: PageContents): readonly Uint8Array[] => {
  const [head, tail] = protectedTemplate().split(DATA);
  const numbers = prototypes.map(({ color, nearest, ...prototype }) => ({
    ...prototype,
    color: `#${color.map((value) => value.toString(16).padStart(2, "0")).join("")}`,
    nearest: nearest.map(({ picture, score }) => [picture, Number(score.toFixed(6))]),
  }));
  const contents = new TextDecoder().decode(json({ ...about, prototypes: numbers, pictures: [] }));
  return [
    text(head + DATA + contents.slice(0, -"]}".length)),
    ...pictures.flatMap((picture, i) => i === 0 ? [picture] : [COMMA, picture]),
    text(`]}${tail}`),
  ];
};

/** Where the template's data goes: right behind this. */
const DATA = '<script type="application/json" id="data">';
const text = (words: string) => new TextEncoder().encode(words);
const COMMA = text(",");

/** JSON that can stand in a script element, whatever names are in it: none of its text begins a tag. */
const json = (value: unknown) => text(JSON.stringify(value).replaceAll("<", "\\u003c"));

/** The template with a policy under which a browser runs its own script and style, and loads nothing. */
const protectedTemplate = () => {
  const hashOf = (tag: string) => {
    const [, content] = template.match(new RegExp(`<${tag}>(.*?)</${tag}>`, "s"))!;
    return `'sha256-${createHash("sha256").update(content).digest("base64")}'`;
  };
  const policy =
    `default-src 'none'; img-src data:; script-src ${hashOf("script")}; style-src ${hashOf("style")}; ` +
    `base-uri 'none'; form-action 'none'`;
  return template.replace("default-src 'none'", () => policy);
};
