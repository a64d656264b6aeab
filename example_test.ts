import assert from "node:assert/strict";
import { join } from "node:path";
import { permissionFlags } from "./cli/launch/permissions.ts";
import { inTestFolder, writeNoise } from "./data/_test_kit.ts";

const root = import.meta.dirname!;

Deno.test(
  "the example is the one in the README, and trains",
  inTestFolder(async (folder) => {
    const example = Deno.readTextFileSync(join(root, "example.ts"));
    assert.ok(
      Deno.readTextFileSync(join(root, "README.md")).includes(example),
      "README.md shows another example",
    );

    const [pictures, run] = [join(folder, "pictures"), join(folder, "run")];
    await writeNoise(pictures, { count: 16 });
    const flags = await permissionFlags(["pretrain", "--data-dir", pictures, "--output-dir", run]);
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--cached-only",
        "--no-prompt",
        "--ignore-env",
        ...flags,
        "example.ts",
        pictures,
        run,
        "1",
      ],
      cwd: root,
      stdout: "null",
    }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    const [line] = Deno.readTextFileSync(join(run, "metrics.jsonl")).split("\n");
    const { loss, slot_size } = JSON.parse(line);
    assert.ok(Number.isFinite(loss) && slot_size > 0);
  }),
);
