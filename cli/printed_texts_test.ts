/** What comes from files and names reaches no terminal and no log as anything but text. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { inTestFolder, writeImage, writeNoise } from "../data/_test_kit.ts";
import { writeSafetensors } from "../data/formats/safetensors.ts";
import { runSlotcon, tinyRun } from "./_test_kit.ts";

const HOSTILE = "a\x1b[31m\x9b2J\u202e\x07b";
const SHOWN = "a\\u001b[31m\\u009b2J\\u202e\\u0007b";

/** Fails where a text has the hostile one in it as it is, or not at all. */
const assertShown = (text: string, what: string) => {
  assert.doesNotMatch(text, /(?![\n\t])\p{Cc}|[\u2028-\u202e]/u, what);
  assert.ok(text.includes(SHOWN), `${what}: ${text}`);
};

Deno.test(
  "no command prints what steers a terminal, whether it is in a path, an option, a configuration or a tensor's name",
  inTestFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "keys.yaml"), `${JSON.stringify(HOSTILE)}: 1\n`);
    const zeros = { dtype: "F32", shape: [1], data: new Float32Array(1) } as const;
    const pieces = writeSafetensors(new Map([[HOSTILE, zeros]]), { format: HOSTILE });
    await Deno.writeFile(join(folder, "named.safetensors"), Buffer.concat(pieces));
    const commands = [
      ["convert", HOSTILE, "x.pth", "--to", "pth"],
      ["convert", "named.safetensors", HOSTILE, "--to", HOSTILE],
      ["inspect", HOSTILE],
      ["inspect", "named.safetensors"],
      ["visualize", HOSTILE],
      ["evaluate", "knn", HOSTILE, "--data-dir", "x"],
      ["verify", HOSTILE],
      ["watch", HOSTILE],
      ["tune", "--config", HOSTILE],
      ["doctor", "--config", "keys.yaml"],
      ["pretrain", "--config", "keys.yaml"],
      ["pretrain", "--dataset", "Folder", "--data-dir", HOSTILE],
    ];
    for (const command of commands) {
      const { code, out, err } = await runSlotcon(folder, ...command);
      assert.equal(code, 1, command.join(" "));
      assertShown(`${out}${err}`, command.join(" "));
    }
  }),
);

Deno.test(
  "pretrain shows the name of a bad picture as text, on the terminal and in the log",
  inTestFolder(async (folder) => {
    const pictures = join(folder, "pictures");
    await writeNoise(pictures, { count: 8 });
    await Deno.writeTextFile(join(pictures, `${HOSTILE}.jpg`), "no picture");
    const run = [...tinyRun(pictures, "run"), "--epochs", "1", "--max-bad-images", "0.2"];
    const { code, out, err } = await runSlotcon(folder, ...run);
    assert.equal(code, 0, err);
    assertShown(`${out}${err}`, "terminal");
    assertShown(await Deno.readTextFile(join(folder, "run", "log.txt")), "log");
  }),
);

Deno.test(
  "evaluate shows names of classes and pictures as text",
  inTestFolder(async (folder) => {
    const picture = { width: 48, height: 32, rgb: new Uint8Array(48 * 32 * 3).fill(90) };
    const file_name = `${HOSTILE}.jpg`;
    for (const name of ["val2017", "annotations"]) await Deno.mkdir(join(folder, name));
    for (const name of ["1.jpg", "2.jpg"]) await writeImage(join(folder, "val2017", name), picture);
    await Deno.writeTextFile(join(folder, "val2017", file_name), "no picture");
    const images = ["1.jpg", "2.jpg", file_name].map((name, id) => (
      { id, file_name: name, width: 48, height: 32 }
    ));
    const annotations = images.map(({ id }) => (
      { id, image_id: id, category_id: 1, iscrowd: 0, segmentation: [[0, 0, 20, 0, 20, 20, 0, 20]] }
    ));
    const categories = [{ id: 1, name: HOSTILE }];
    await Deno.writeTextFile(
      join(folder, "annotations", "instances_val2017.json"),
      JSON.stringify({ images, annotations, categories }),
    );
    const teacher = join(import.meta.dirname!, "..", "testdata", "checkpoint", "tiny_lars.pth");
    const { code, out, err } = await runSlotcon(
      folder,
      ...["evaluate", "grouping", teacher, "--data-dir", ".", "--image-size", "32"],
      ...["--max-bad-images", "0.5", "--output", "out.json"],
    );
    assert.equal(code, 0, err);
    assertShown(out, "class");
    assertShown(err, "picture");
    assert.equal(JSON.parse(await Deno.readTextFile(join(folder, "out.json"))).classes[0].name, HOSTILE);
  }),
);
