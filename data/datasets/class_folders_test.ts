import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { Effect } from "effect";
import { inTestFolder } from "../_test_kit.ts";
import { classFolders } from "./class_folders.ts";

const put = (folder: string, ...files: string[]) => {
  for (const file of files) {
    Deno.mkdirSync(dirname(join(folder, file)), { recursive: true });
    Deno.writeTextFileSync(join(folder, file), "");
  }
};
const refusal = async (folder: string) =>
  (await Effect.runPromise(Effect.flip(classFolders(folder)))).message;

Deno.test(
  "classFolders() numbers classes by their sorted names and leaves out what is no picture",
  inTestFolder(async (folder) => {
    put(folder, "train/b/2.png", "train/b/1.JPEG", "train/a/x.jpg", "train/a/notes.txt", "train/README");
    put(folder, "val/a/v.jpeg", "val/b/v.webp", "val/.cache/c.jpg");
    put(folder, "train/a/._x.jpg", "val/b/._v.webp", "train/a/Thumbs.db", "val/.DS_Store"); // hidden, and of the system
    const { classes, train, val } = await Effect.runPromise(classFolders(folder));
    assert.deepEqual(classes, ["a", "b"]);
    const named = (split: typeof train) =>
      split.map(({ file, label }) => `${file.slice(folder.length)} ${label}`);
    assert.deepEqual(named(train), ["/train/a/x.jpg 0", "/train/b/1.JPEG 1", "/train/b/2.png 1"]);
    assert.deepEqual(named(val), ["/val/a/v.jpeg 0", "/val/b/v.webp 1"]);
  }),
);

Deno.test(
  "classFolders() says what is wrong with a layout: no folder, no classes, loose pictures, an empty class, other classes",
  inTestFolder(async (folder) => {
    assert.match(await refusal(folder), /train": there is no such folder; expected train\/<class>/);
    put(folder, "train/readme.txt");
    assert.match(await refusal(folder), /train": it has no folder of a class/);
    put(folder, "train/a/x.jpg", "train/b/y.jpg", "val/ILSVRC2012_val_00000001.JPEG");
    assert.match(await refusal(folder), /val": it has pictures \(1\), but no folder of a class/);
    put(folder, "val/a/x.txt");
    assert.match(await refusal(folder), /val\/a": it has no pictures/);
    put(folder, "val/a/x.jpg", "val/c/x.jpg");
    assert.match(await refusal(folder), /val\/ has "c", which train\/ has not/);
    put(folder, "train/c/x.jpg");
    assert.match(await refusal(folder), /train\/ has "b", which val\/ has not/);
  }),
);
