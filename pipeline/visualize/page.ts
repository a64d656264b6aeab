/** A page of images and their slots as one HTML file, which needs no server and no network. */
import { createHash } from "node:crypto";
import { deflateRawSync } from "node:zlib";
import { Effect } from "effect";
import sharp from "sharp";
import type { Picture } from "../../data/images/decode_image.ts";
import { scaled, scaledMap } from "../inference/scaled.ts";
import type { Color } from "./colors.ts";
import template from "./page.html" with { type: "text" };
import type { Neighbor } from "./retrieval.ts";

/** A prototype on a page. */
export interface PagePrototype {
  /** Its number in the network. */
  readonly number: number;
  /** Its colour on the page. */
  readonly color: Color;
  /** In how many images it has the highest score somewhere. */
  readonly wonIn: number;
  /** Its share of all pixels: 0 … 1. */
  readonly share: number;
  /** Its nearest images by their indices on the page, best first; empty on a page of images alone. */
  readonly nearest: readonly Neighbor[];
}

/** The contents of a page. */
export interface PageContents {
  /** The heading. */
  readonly title: string;
  /** A line of text below the heading. */
  readonly facts: string;
  /** The number of images that `wonIn` refers to. */
  readonly looked: number;
  /** The prototypes, in the order of the page. */
  readonly prototypes: readonly PagePrototype[];
  /** The images, in the order of the page. */
  readonly pictures: readonly PagePicture[];
}

/** The JSON of an image on a page, as bytes. */
export type PagePicture = Uint8Array;

/** The most bytes of all images on a page; base64 adds a third. */
const ROOM = 20e6;
/** Bytes of a pixel of a photograph in a good JPEG. */
const BYTES_PER_PIXEL = 0.3;
/** JPEG qualities, of which the first that makes an image small enough is taken. */
const QUALITIES = [88, 80, 70, 55, 40, 25];

/**
 * An image for a page of `count`, with the number of a prototype for each pixel, `segments` [H, W]. The more images
 * there are, the smaller and the more compressed they become, so that the page stays below some 30 MB.
 */
export const pagePicture: (
  name: string,
  image: Picture,
  segments: ArrayLike<number>,
  count: number,
) => Effect.Effect<PagePicture> = Effect.fnUntraced(function* (name, image, segments, count) {
  const room = ROOM / count;
  const shrink = Math.min(1, Math.sqrt(room / BYTES_PER_PIXEL / (image.width * image.height)));
  const width = Math.max(1, Math.round(shrink * image.width));
  const height = Math.max(1, Math.round(shrink * image.height));
  const { rgb } = yield* scaled(image, { width, height });

  const map = scaledMap(segments, image, { width, height });
  const deflated = deflateRawSync(new Uint8Array(map.buffer));

  let jpeg = new Uint8Array();
  for (const quality of QUALITIES) {
    jpeg = yield* Effect.promise(() =>
      sharp(rgb, { raw: { width, height, channels: 3 } }).jpeg({ quality, mozjpeg: true }).toBuffer()
    );
    if (jpeg.length + deflated.length <= room) break;
  }
  return json({ name, width, height, jpeg: jpeg.toBase64(), map: deflated.toBase64() });
});

/** The bytes of a page, in pieces to be written one after the other. */
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
    ...pictures.flatMap((image, i) => i === 0 ? [image] : [COMMA, image]),
    text(`]}${tail}`),
  ];
};

/** The tag in the template after which the data is inserted. */
const DATA = '<script type="application/json" id="data">';
const text = (words: string) => new TextEncoder().encode(words);
const COMMA = text(",");

/** JSON for a script element: no text in it, such as the name of a file, can begin a tag. */
const json = (value: unknown) => text(JSON.stringify(value).replaceAll("<", "\\u003c"));

/** The template with a content security policy: a browser runs its own script and style, and loads nothing. */
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
