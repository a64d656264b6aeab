import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { Effect } from "effect";
import { inTestFolder, shell } from "../_test_kit.ts";
import { type Dataset, listImages } from "./image_list.ts";

/** A folder of empty files, gone after the test. */
const withFiles = (files: readonly string[], test: (dir: string) => Promise<void>) =>
  inTestFolder(async (dir) => {
    for (const file of files) {
      await Deno.mkdir(dirname(join(dir, file)), { recursive: true });
      await Deno.writeTextFile(join(dir, file), "");
    }
    await test(dir);
  })();

const list = async (dataset: Dataset, dataDir: string) => {
  const paths = await Effect.runPromise(listImages({ dataset, dataDir }));
  return paths.map((path) => path.slice(dataDir.length + 1));
};
const problem = (dataset: Dataset, dataDir: string) =>
  Effect.runPromise(Effect.flip(listImages({ dataset, dataDir })).pipe(Effect.map((error) => error.message)));

Deno.test("listImages() finds the pictures of every layout, sorted", async () => {
  const files = [
    "train2017/000000000042.jpg",
    "train2017/000000000009.jpg",
    "train2017/notes.txt",
    "unlabeled2017/000000000001.jpg",
    "val2017/000000000007.jpg",
    "train/n02/n02_1.JPEG",
    "train/n01/n01_10.JPEG",
    "train/n01/n01_9.JPEG",
  ];
  await withFiles(files, async (dir) => {
    const coco = ["train2017/000000000009.jpg", "train2017/000000000042.jpg"];
    assert.deepEqual(await list("COCO", dir), coco);
    assert.deepEqual(await list("COCOplus", dir), [...coco, "unlabeled2017/000000000001.jpg"]);
    assert.deepEqual(await list("COCOval", dir), ["val2017/000000000007.jpg"]);
    const imageNet = ["train/n01/n01_10.JPEG", "train/n01/n01_9.JPEG", "train/n02/n02_1.JPEG"];
    assert.deepEqual(await list("ImageNet", dir), imageNet);
  });
});

Deno.test("listImages() searches any folder to its depth, through links, and once only", async () => {
  await withFiles(["b/deep/1.PNG", "a.jpeg", "b/.hidden.jpg", "b/readme.md", "c.JPG"], async (dir) => {
    await Deno.symlink(dir, join(dir, "b/loop"));
    await Deno.symlink(join(dir, "a.jpeg"), join(dir, "z.jpg"));
    await Deno.symlink("nowhere", join(dir, "lost.jpg"));
    assert.deepEqual(await list("Folder", dir), ["a.jpeg", "b/deep/1.PNG", "c.JPG", "lost.jpg", "z.jpg"]);
  });
});

Deno.test("listImages() reads a text file of paths in its order, relative to the file", async () => {
  await withFiles(["lists/some.txt"], async (dir) => {
    const file = join(dir, "lists/some.txt");
    await Deno.writeTextFile(file, "z.jpg\r\n\n  ../a b.png  \n/elsewhere/c.jpg");
    const paths = await Effect.runPromise(listImages({ dataset: "Folder", dataDir: file }));
    assert.deepEqual(paths, [join(dir, "lists/z.jpg"), join(dir, "a b.png"), "/elsewhere/c.jpg"]);
  });
});

Deno.test("listImages() says in one sentence what is missing and what it looked for", async () => {
  await withFiles(
    ["empty.txt", "train2017/readme.txt", "train/n01/x.png", "lone/readme.txt"],
    async (dir) => {
      await Deno.writeFile(join(dir, "picture.jpg"), Uint8Array.of(0xff, 0xd8, 0xff, 0x00));
      assert.match(
        await problem("COCO", join(dir, "nope")),
        /There is no ".*nope": --data-dir must name the folder/,
      );
      assert.match(await problem("COCO", dir), /no pictures in ".*train2017": looked for train2017\/\*\.jpg/);
      assert.match(await problem("COCOval", dir), /no folder ".*val2017": looked for val2017\/\*\.jpg/);
      assert.match(await problem("ImageNet", dir), /looked for train\/<wnid>\/\*\.JPEG/);
      assert.match(await problem("Folder", join(dir, "lone")), /no pictures in ".*lone": looked for \*\.jpg/);
      assert.match(await problem("Folder", join(dir, "empty.txt")), /text file ".*" is empty/);
      assert.match(await problem("Folder", join(dir, "picture.jpg")), /neither a folder nor text/);
    },
  );
});

Deno.test("listImages() reads a list of any name, of any system's lines, and refuses pipes, devices and what is no list", async () => {
  await withFiles(["some.lst", "train/n01/1.JPEG", "train/n01/._1.JPEG"], async (dir) => {
    const file = join(dir, "some.lst");
    const listed = async (contents: string | Uint8Array) => {
      await Deno.writeFile(
        file,
        typeof contents === "string" ? new TextEncoder().encode(contents) : contents,
      );
      return await Effect.runPromise(listImages({ dataset: "Folder", dataDir: file })).then(
        (paths) => paths.map((path) => path.slice(dir.length + 1)),
        ({ message }) => message,
      );
    };
    const odd = "a, b;'c\"$(d)*é\u{1f600}.jpg";
    assert.deepEqual(await listed(`\ufeff--x.jpg\r\r\n \t\n${odd}\r-y.png`), ["--x.jpg", odd, "-y.png"]);
    assert.match(await listed("\ufeff\r\n \n"), /text file .* is empty/);
    assert.match(await listed(Uint8Array.of(0xff, 0xfe, 0x61, 0, 0x0a, 0)), /neither a folder nor text/);
    assert.match(await listed("x".repeat(5000)), /is no list of pictures: .* no longer than a path can be/);
    await shell('mkfifo "$0"', [join(dir, "pipe.txt")]).output();
    await shell('mkfifo "$0"', [join(dir, "train/pipe")]).output();
    await Deno.symlink("/dev/zero", join(dir, "zero.txt"));
    for (const name of ["pipe.txt", "zero.txt"]) {
      assert.match(await problem("Folder", join(dir, name)), /is neither a folder nor text/);
    }
    assert.deepEqual(await list("ImageNet", dir), ["train/n01/1.JPEG"]);
  });
});
