/** Where `slotcon visualize` writes: a sheet of pictures, and a page of the same name beside it. */
import { dirname, resolve } from "node:path";
import { Console, Effect } from "effect";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import { writtenBytes } from "../../pipeline/run/bytes.ts";
import { page, type PageContents } from "../../pipeline/visualize/page.ts";
import type { Paper } from "../../pipeline/visualize/paper.ts";
import { UsageError } from "../flags/usage_error.ts";

/** The files to write: a sheet, unless the page is wanted alone, and a page. */
export interface Target {
  readonly picture: { readonly file: string; readonly format: "png" | "jpeg" } | null;
  readonly page: string;
}

/** The files that --save-path names. Fails before anything is computed where it cannot name them. */
export const targetOf = Effect.fnUntraced(function* (file: string) {
  const [, stem = "", suffix = ""] = file.match(/^(.*[^/\\])\.(jpg|jpeg|png|html)$/is) ?? [];
  if (stem === "") return yield* refuse(`expected a name that ends in .jpg, .png or .html, found "${file}"`);
  const folder = dirname(resolve(file));
  const found = yield* Effect.promise(() => Deno.stat(folder).catch(() => null));
  if (found?.isDirectory !== true) return yield* refuse(`there is no folder "${folder}"`);
  const format = suffix.toLowerCase() === "png" ? "png" : "jpeg";
  const target: Target = suffix.toLowerCase() === "html"
    ? { picture: null, page: file }
    : { picture: { file, format }, page: `${stem}.html` };
  return target;
});

/** Fails where writing would replace one of the pictures that are read. */
export const expectNotRead = (
  { picture, page }: Target,
  files: readonly string[],
): Effect.Effect<void, UsageError> => {
  const written = [picture?.file ?? page, page].map((file) => resolve(file));
  const same = files.find((file) => written.includes(resolve(file)));
  return same === undefined ? Effect.void : refuse(`"${same}" is one of the pictures`, "name another file");
};

/** What was found: a sheet, what it shows, and the page without its title. */
export interface Shown extends Omit<PageContents, "title"> {
  readonly sheet: Paper;
  readonly says: string;
}

/** Writes both files and says what they are. */
export const writeShown = Effect.fnUntraced(
  function* (target: Target, { sheet, says, ...contents }: Shown, title: string) {
    const files: [file: string, what: string, pieces: readonly Uint8Array[]][] = [];
    if (target.picture !== null) {
      const { file, format } = target.picture;
      files.push([file, says, [yield* sheet.encode(format)]]);
    }
    files.push([target.page, `the page, with ${contents.facts}`, page({ ...contents, title })]);
    for (const [file, what, pieces] of files) {
      yield* writeWholeFile(file, pieces).pipe(
        Effect.mapError(({ message }) => refuse(`cannot write "${file}": ${message}`)),
      );
      const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
      yield* Console.log(`${file}: ${writtenBytes(bytes)}, ${what}`);
    }
  },
);

const refuse = (reason: string, remedy?: string) =>
  new UsageError({ subject: "--save-path", reason, remedy });
