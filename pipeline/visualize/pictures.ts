/** Any images beside their slots, whole and with their own proportions, as a page and as a sheet. */
import { Effect, Result } from "effect";
import { type Picture, readPicture } from "../../data/images/decode_image.ts";
import { resizeCrop } from "../../data/images/resample.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import type { DeviceState } from "../../ops/runtime/program.ts";
import type { RunError } from "../inference/descriptors.ts";
import { evaluationFrame } from "../inference/framed.ts";
import { scaled, scaledMap, type Size } from "../inference/scaled.ts";
import { packedBatches, runBatches, slotProgram, uploadTeacher } from "../inference/slot_program.ts";
import type { Teacher, TeacherOptions } from "../weights/teacher.ts";
import { type Color, distinctColors } from "./colors.ts";
import { type PagePicture, pagePicture, type PagePrototype } from "./page.ts";
import { LARGEST_SHEET, MOST_PIXELS, Paper } from "./paper.ts";
import { tinted } from "./tinted.ts";
import { NoImagesError, type Watcher } from "./watcher.ts";

/** An image and the prototype with the highest score at each pixel, at the size in which they are shown. */
interface Shown {
  readonly picture: Picture;
  readonly segments: Uint16Array;
}

/** What to show of images. */
export interface PicturesOptions {
  /** The name of a file on the page. */
  readonly nameOf: (file: string) => string;
  /** Where progress goes. */
  readonly watcher: Watcher;
}

/** Images and their slots, as a sheet and as the contents of a page. */
export interface ShownPictures {
  /** The images beside their slots, in pairs. */
  readonly sheet: Paper;
  /** The images for a page. */
  readonly pictures: readonly PagePicture[];
  /** The prototypes that have the highest score somewhere, the most used first. */
  readonly prototypes: readonly PagePrototype[];
}

/**
 * Shows images (paths) and their slots by a teacher. Images that cannot be decoded are left out, with a warning. Fails
 * with a NoImagesError where none is left, PlanError, or as running a program does.
 */
export const showPictures: (
  teacher: Teacher,
  files: readonly string[],
  options: PicturesOptions,
) => Effect.Effect<ShownPictures, NoImagesError | PlanError | RunError, Gpu> = Effect.fn("showPictures")(
  function* (
    { model, values },
    files,
    { nameOf, watcher },
  ) {
    const teacher = yield* uploadTeacher(model, values);
    // Small enough for a sheet of all images, most of which are 3 : 2.
    const room = Math.floor(Math.sqrt(MOST_PIXELS / (3.2 * files.length)));
    const height = Math.max(LEAST_HEIGHT, Math.min(320, room));
    const onPage: PagePicture[] = [], onSheet: Shown[] = [];
    const shares = new Array<number>(model.numPrototypes).fill(0);
    const wonIn = new Array<number>(model.numPrototypes).fill(0);
    for (const [i, file] of files.entries()) {
      const read = yield* Effect.result(readPicture(file));
      if (Result.isFailure(read)) yield* Effect.logWarning(`${read.failure.message}. It is left out.`);
      else {
        const { picture, segments } = yield* slotsOf(read.success, model, teacher);
        onPage.push(yield* pagePicture(nameOf(file), picture, segments, files.length));
        const won = new Set(segments);
        for (const k of won) wonIn[k]++;
        for (const k of segments) shares[k] += 1 / segments.length;
        onSheet.push(yield* within({ picture, segments }, { width: LONGEST * height, height }));
      }
      yield* watcher.progress("Looking at pictures", i + 1, files.length);
    }
    if (onPage.length === 0) return yield* new NoImagesError();

    const byUse = shares.map((_, k) => k).filter((k) => wonIn[k] > 0).sort((a, b) =>
      shares[b] - shares[a] || a - b
    );
    const palette = distinctColors(byUse.length);
    const colors: Color[] = [];
    byUse.forEach((number, rank) => colors[number] = palette[rank]);
    return {
      sheet: pairSheet(
        onSheet.map(({ picture, segments }) => [picture, tinted(picture, segments, colors)]),
        height,
      ),
      pictures: onPage,
      prototypes: byUse.map((number): PagePrototype => ({
        number,
        color: colors[number],
        wonIn: wonIn[number],
        share: shares[number] / onPage.length,
        nearest: [],
      })),
    };
  },
  Effect.scoped,
);

/** The longer side of an image on the page, in pixels. */
const SHOWN = 640;
/**
 * The sides of the network's input are multiples of this, the largest output stride, so that its cells tile the image.
 */
const STRIDE = 32;
/**
 * The longest side of the network's input, in multiples of the shorter one: longer panoramas are compressed. On the sheet,
 * where they keep their proportions, they are no longer than so many heights of a line.
 */
const LONGEST = 4;

/** An image's slots: the network sees it as large as in training, and the maps are enlarged to the size shown. */
const slotsOf = Effect.fnUntraced(function* (image: Picture, model: TeacherOptions, teacher: DeviceState) {
  const { width, height } = image;
  const [shorter, longer] = [Math.min(width, height), Math.max(width, height)];
  const side = (length: number) =>
    STRIDE * Math.max(
      1,
      Math.round(evaluationFrame(model.imageSize).resize * Math.min(length / shorter, LONGEST) / STRIDE),
    );
  const seen = { width: side(width), height: side(height) };
  const sized = (length: number) => Math.max(1, Math.round(SHOWN * length / longer));
  const shown = { width: sized(width), height: sized(height) };
  const program = yield* slotProgram(model, teacher, {
    pictures: [1, seen.height, seen.width],
    slots: shown,
  });
  let segments = new Uint16Array();
  const asSeen = resizeCrop(image, seen, [0, 0, seen.height, seen.width]);
  yield* runBatches(program, packedBatches([asSeen], 1), ({ values }) =>
    Effect.sync(() => {
      segments = Uint16Array.from(values);
    }));
  return { picture: yield* scaled(image, shown), segments } satisfies Shown;
}, Effect.scoped);

/** An image at the largest size of its own proportions that is within a box; at least a pixel wide and high. */
const within = Effect.fnUntraced(function* ({ picture, segments }: Shown, box: Size) {
  const scale = Math.min(box.width / picture.width, box.height / picture.height);
  const size = {
    width: Math.max(1, Math.round(scale * picture.width)),
    height: Math.max(1, Math.round(scale * picture.height)),
  };
  return {
    picture: yield* scaled(picture, size),
    segments: scaledMap(segments, picture, size),
  } satisfies Shown;
});

/** The height of a line on the sheet, where there are so many images that they hardly fit. */
const LEAST_HEIGHT = 8;
/** Pixels between the images of a pair; there are more between pairs. */
const GAP = 4;

/** Pairs of images in lines of one height, like words, of the length that wastes the least of the sheet. */
const pairSheet = (pairs: readonly (readonly [Picture, Picture])[], lineHeight: number): Paper => {
  const step = lineHeight + 4 * GAP;
  const widths = pairs.map(([{ width }]) => 2 * width + 5 * GAP);
  const square = Math.sqrt(step * widths.reduce((sum, width) => sum + width, 0));
  const layouts = [0.8, 1, 1.2, 1.4, 1.6].map((stretch) => {
    const longest = Math.max(stretch * square, ...widths);
    let x = 0, y = 0, right = 0;
    const corners = widths.map((width) => {
      if (x > 0 && x + width > longest) [x, y] = [0, y + step];
      const corner = { x: x + 2 * GAP, y: y + 2 * GAP };
      right = Math.max(right, x += width);
      return corner;
    });
    return { corners, width: right, height: y + step };
  });
  const best = layouts.reduce((a, b) => b.width * b.height < a.width * a.height ? b : a);
  const paper = new Paper(best.width, Math.min(best.height, Math.floor(LARGEST_SHEET / best.width)));
  pairs.forEach(([image, slots], i) => {
    const { x, y } = best.corners[i];
    paper.put(image, x, y);
    paper.put(slots, x + image.width + GAP, y);
  });
  return paper;
};
