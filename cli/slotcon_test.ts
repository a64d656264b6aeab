import assert from "node:assert/strict";
import { endingOf, inTestFolder, shell } from "../data/_test_kit.ts";
import { slotcon, withoutVoice } from "./_test_kit.ts";

/** Runs a line of shell in a folder, with the launcher's path as $0. */
const inShell = async (line: string, cwd: string) =>
  withoutVoice(endingOf(await shell(line, [slotcon], { cwd }).output()));

Deno.test(
  "slotcon starts through a link, from another folder, with spaces in both",
  inTestFolder(async (folder) => {
    await Deno.mkdir(`${folder}/a b/c`, { recursive: true });
    const { code, out, err } = await inShell(
      'ln -s "$0" "a b/my slotcon" && cd "a b/c" && "../my slotcon" --version',
      folder,
    );
    assert.equal(err, "");
    assert.match(out, /^slotcon v\d/);
    assert.equal(code, 0);
  }),
);

Deno.test(
  "slotcon says in one sentence what is wrong with its input, and writes nothing",
  inTestFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/wrong.yaml`, "epochs: 3\nbacth-size: 4\n");
    await Deno.mkdir(`${folder}/empty`);
    const cases: [string, RegExp][] = [
      ["pretrian", /^slotcon: there is no command "pretrian"; did you mean pretrain\?$/],
      ["pretrain --bacth-size 4", /^slotcon: there is no --bacth-size; did you mean --batch-size\?$/],
      ["pretrain --batch-size many", /^slotcon: --batch-size: expected a number, found "many"$/],
      ["pretrain --batch-size 0", /^slotcon: --batch-size: expected .* 1, found 0$/],
      ["pretrain --preset coco", /^slotcon: --preset: expected "coco-800" .* found "coco"$/],
      ["pretrain --arch vgg16", /^slotcon: --arch: expected "resnet18" .* found "vgg16"$/],
      ["pretrain --config none.yaml", /^slotcon: --config "none.yaml": there is no such file$/],
      ["pretrain --config wrong.yaml", /^slotcon: "wrong.yaml", line 2: .*; did you mean "batch-size"\?$/],
      ["pretrain --data-dir nowhere", /^slotcon: There is no "nowhere": --data-dir must name/],
      ["pretrain --dataset Folder --data-dir empty", /^slotcon: There are no pictures in "empty"/],
    ];
    for (const [options, expected] of cases) {
      const { code, out, err } = await inShell(`"$0" ${options}`, folder);
      assert.equal(code, 1, options);
      assert.equal(out, "", options);
      assert.match(err.split("\n")[0], expected);
      assert.ok(err.trimEnd().split("\n").length <= 2, err);
    }
    const names = Array.from(Deno.readDirSync(folder), ({ name }) => name);
    assert.deepEqual(names.sort(), ["empty", "wrong.yaml"]);
  }),
);

Deno.test("slotcon test says at once of a filter that no test has it, or that it is none", async () => {
  const cases: [string, RegExp][] = [
    ["'nöbodywröte'", /^slotcon: FILTER: no test has "nöbodywröte" in its name\n$/],
    ["'/^nöbodywröte/'", /^slotcon: FILTER: no test matches \/\^nöbodywröte\/\n$/],
    ["'/(/'", /^slotcon: FILTER: Invalid regular expression: .*\n$/],
  ];
  for (const [filter, expected] of cases) {
    const { code, out, err } = await inShell(`"$0" test ${filter}`, ".");
    assert.match(err, expected);
    assert.deepEqual({ code, out }, { code: 1, out: "" }); // nothing was loaded
  }
});

Deno.test(
  "slotcon pretrain --print-config lets flags win over the file and the file over the preset",
  inTestFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/c.yaml`, "preset: imagenet-100\nepochs: 7\nseed: 1\n");
    const { out } = await inShell('"$0" pretrain --config c.yaml --seed 2 --print-config', folder);
    const { dataset, epochs, seed } = JSON.parse(out);
    assert.deepEqual({ dataset, epochs, seed }, { dataset: "ImageNet", epochs: 7, seed: 2 });
  }),
);
