import assert from "node:assert/strict";
import { join } from "node:path";
import sharp from "sharp";
import { permissionFlags } from "./cli/launch/permissions.ts";
import { randomStream } from "./data/random/random.ts";

const root = import.meta.dirname!;

Deno.test("the example is the one in the README, and trains", async () => {
  const example = Deno.readTextFileSync(join(root, "example.ts"));
  assert.ok(
    Deno.readTextFileSync(join(root, "README.md")).includes(example),
    "README.md shows another example",
  );

  const folder = Deno.makeTempDirSync();
  try {
    const random = randomStream(1);
    for (let i = 0; i < 16; i++) {
      const data = Uint8Array.from({ length: 80 * 64 * 3 }, () => random.integer(256));
      await sharp(data, { raw: { width: 80, height: 64, channels: 3 } }).jpeg().toFile(
        join(folder, `${i}.jpg`),
      );
    }
    const run = join(folder, "run");
    const flags = await permissionFlags(["pretrain", "--data-dir", folder, "--output-dir", run]);
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--cached-only", "--no-prompt", "--ignore-env", ...flags, "example.ts", folder, run, "1"],
      cwd: root,
      stdout: "null",
    }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    const [line] = Deno.readTextFileSync(join(run, "metrics.jsonl")).split("\n");
    const { loss, slot_size } = JSON.parse(line);
    assert.ok(Number.isFinite(loss) && slot_size > 0);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
