/** Every prototype with its nearest images, as a page and as a sheet. */
import { Data, Effect, Stream } from "effect";
import type { Picture } from "../../data/images/decode_image.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import type { RunError } from "../inference/descriptors.ts";
import { evaluationFrame } from "../inference/framed.ts";
import { framedBatches } from "../inference/framed_batches.ts";
import { unpack } from "../inference/packed_pictures.ts";
import { scaled } from "../inference/scaled.ts";
import { runBatches, slotProgram, uploadTeacher } from "../inference/slot_program.ts";
import { leftOut, type TooManyBadImagesError } from "../run/bad_images.ts";
import type { WorkerError } from "../run/worker.ts";
import type { Teacher } from "../weights/teacher.ts";
import { type Color, distinctColors } from "./colors.ts";
import { highlighted } from "./highlighted.ts";
import { type PagePicture, pagePicture, type PagePrototype } from "./page.ts";
import { label, LARGEST_SHEET, MOST_PIXELS, Paper } from "./paper.ts";
import { type NonFiniteScoresError, type Retrieval, retrieve } from "./retrieval.ts";
import type { Watcher } from "./watcher.ts";

/** What to show of prototypes. */
export interface PrototypesOptions {
  /** The number of nearest images of each prototype. */
  readonly topk: number;
  /** Images at a time. */
  readonly batchSize: number;
  /** The prototypes on the sheet, in the order of its rows; null for all, the most used first. */
  readonly rows: readonly number[] | null;
  /** The name of a file on the page. */
  readonly nameOf: (file: string) => string;
  /** Where progress goes. */
  readonly watcher: Watcher;
  /** The share of the images that may be unreadable; they are left out. */
  readonly maxBadImages: number;
}

/** Prototypes and their nearest images, as a sheet and as the contents of a page. */
export interface ShownPrototypes {
  /** The nearest images and the use of all prototypes. */
  readonly retrieval: Retrieval;
  /** A row for each prototype, as far as there is room. */
  readonly sheet: Paper;
  /** The number of its rows. */
  readonly rows: number;
  /** The images for a page. */
  readonly pictures: readonly PagePicture[];
  /** All prototypes, in the order of their numbers. */
  readonly prototypes: readonly PagePrototype[];
}

/** A file could be decoded for the ranking and cannot be decoded for drawing. */
export class ChangedImageError extends Data.Error<{
  readonly subject: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "ChangedImageError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `"${this.subject}" could be decoded at first and no longer can: run the command again`;
  }
}

/**
 * Ranks images (paths) for every prototype of a teacher, then decodes the best once more to draw them. Memory holds a
 * few batches, the sheet and the images of the page. Fails with a TooManyBadImagesError, NonFiniteScoresError,
 * ChangedImageError, WorkerError, PlanError, or as running a program does.
 */
export const showPrototypes: (
  teacher: Teacher,
  files: readonly string[],
  options: PrototypesOptions,
) => Effect.Effect<
  ShownPrototypes,
  TooManyBadImagesError | NonFiniteScoresError | ChangedImageError | WorkerError | PlanError | RunError,
  Gpu
> = Effect.fn("showPrototypes")(function* (
  { model, values },
  files,
  { topk, batchSize, rows, nameOf, watcher, maxBadImages },
) {
  const frame = evaluationFrame(model.imageSize), size = frame.crop;
  const teacher = yield* uploadTeacher(model, values);
  const batch = Math.min(batchSize, files.length);
  const pictures = [batch, size, size];
  const bad = leftOut(files, maxBadImages);

  const retrieval = yield* Effect.scoped(Effect.gen(function* () {
    const ranking = yield* slotProgram(model, teacher, { pictures });
    const batches = framedBatches(files, { batch, frame, bad }).pipe(
      Stream.tap(({ first, problems }) =>
        watcher.progress("Ranking pictures", first + problems.length, files.length)
      ),
    );
    return yield* retrieve(ranking, batches, { topk });
  }));
  const { nearest, shares, wonIn } = retrieval;
  const byUse = shares.map((_, k) => k).sort((a, b) => shares[b] - shares[a] || a - b);
  const palette = distinctColors(byUse.length);
  const colors: Color[] = [];
  byUse.forEach((number, rank) => colors[number] = palette[rank]);
  const perRow = Math.min(topk, retrieval.pictures);
  const drawn = (rows ?? byUse).slice(0, mostRows(perRow));
  const sheet = yield* prototypeSheet(
    drawn.map((number) => ({ number, share: shares[number], color: colors[number] })),
    perRow,
  );
  const cells = Map.groupBy(
    drawn.flatMap((number, row) =>
      nearest[number].map(({ picture }, column) => ({ picture, number, row, column }))
    ),
    ({ picture }) => picture,
  );

  // The images to draw, each once.
  const places = [...new Set(nearest.flat().map(({ picture }) => picture))].sort((a, b) => a - b);
  const onPage = new Array<PagePicture>(places.length);
  const mapping = yield* slotProgram(model, teacher, { pictures, slots: { width: size, height: size } });
  const again = framedBatches(places.map((place) => files[place]), { batch, frame, bad }).pipe(
    Stream.tap(({ first, problems }) => {
      const i = problems.findIndex((problem) => problem !== null);
      return i === -1
        ? Effect.void
        : Effect.fail(new ChangedImageError({ subject: files[places[first + i]] }));
    }),
  );
  let done = 0;
  yield* runBatches(mapping, again, ({ place: i, pixels, values: slots }) =>
    Effect.gen(function* () {
      const image = unpack(pixels, size);
      const segments = Uint16Array.from(slots);
      onPage[i] = yield* pagePicture(nameOf(files[places[i]]), image, segments, places.length);
      for (const { number, row, column } of cells.get(places[i]) ?? []) {
        yield* sheet.put(highlighted(image, segments, number, colors[number]), row, column);
      }
      yield* watcher.progress("Drawing", ++done, places.length);
    }));

  const onPageAt = new Map(places.map((place, i) => [place, i]));
  return {
    retrieval,
    sheet: sheet.paper,
    rows: drawn.length,
    pictures: onPage,
    prototypes: nearest.map((neighbors, number): PagePrototype => ({
      number,
      color: colors[number],
      wonIn: wonIn[number],
      share: shares[number],
      nearest: neighbors.map(({ picture, score }) => ({ picture: onPageAt.get(picture)!, score })),
    })),
  };
}, Effect.scoped);

/** Pixels between cells. */
const GAP = 4;
/** The least side of a cell, in pixels. */
const LEAST_CELL = 16;

/** How many rows of the smallest cells a sheet has room for. */
const mostRows = (length: number): number =>
  Math.floor(LARGEST_SHEET / (length + 1) / (LEAST_CELL + GAP) ** 2);

/**
 * A sheet with a row for each prototype: its label, then `length` cells for images. Many rows are arranged in several
 * columns, so that the sheet is about as wide as high.
 */
const prototypeSheet = Effect.fnUntraced(function* (
  rows: readonly Parameters<typeof label>[0][],
  length: number,
) {
  const cell = Math.max(
    LEAST_CELL,
    Math.min(200, Math.floor(Math.sqrt(MOST_PIXELS / rows.length / (length + 0.6))) - GAP),
  );
  const beside = Math.round(0.6 * cell);
  const rowWidth = beside + length * (cell + GAP) + 4 * GAP;
  const columns = Math.max(1, Math.round(Math.sqrt(rows.length * (cell + GAP) / rowWidth)));
  const perColumn = Math.ceil(rows.length / columns);
  const paper = new Paper(columns * rowWidth, perColumn * (cell + GAP) + GAP);
  const left = (row: number) => Math.floor(row / perColumn) * rowWidth;
  const top = (row: number) => GAP + row % perColumn * (cell + GAP);
  for (const [row, content] of rows.entries()) {
    paper.put(yield* label(content, { width: beside, height: cell }), left(row), top(row));
  }
  return {
    paper,
    put: Effect.fnUntraced(function* (image: Picture, row: number, column: number) {
      const small = yield* scaled(image, { width: cell, height: cell });
      paper.put(small, left(row) + beside + column * (cell + GAP), top(row));
    }),
  };
});
