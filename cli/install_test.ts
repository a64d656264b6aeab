/** What the launcher gets from elsewhere, and where it keeps what may be lost. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { endingOf, inTestFolder, shell } from "../data/_test_kit.ts";
import { slotcon, withoutVoice } from "./_test_kit.ts";

const ROOT = join(import.meta.dirname!, "..");
const noNpm = shell("npm --version").outputSync().success ? null : "there is no npm here";

/** An npm registry on this machine, of one version of every package, whose content is `tarball`. */
const registry = (tarball: Uint8Array<ArrayBuffer>) =>
  Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    const { origin, pathname } = new URL(request.url);
    if (pathname.endsWith(".tgz")) return new Response(tarball);
    const name = decodeURIComponent(pathname.slice(1));
    const dist = { tarball: `${origin}/package.tgz`, integrity: integrityOf(tarball) };
    const version = "2.9.6";
    return Response.json({
      name,
      "dist-tags": { latest: version },
      versions: { [version]: { name, version, dist } },
    });
  });

const integrityOf = (bytes: Uint8Array) => `sha512-${createHash("sha512").update(bytes).digest("base64")}`;

Deno.test({
  name: `slotcon takes a Deno of the known hash, and no other${noNpm === null ? "" : ` (skipped: ${noNpm})`}`,
  ignore: noNpm !== null,
  fn: inTestFolder(async (folder) => {
    // A package with a program that is not Deno, a path with npm and without deno, and a copy of the launcher.
    const prepared = await shell(
      `mkdir -p package bin project/cli project/node_modules && echo '{"name":"x","version":"2.9.6"}' >package/package.json &&
printf '#!/bin/sh\\necho "not Deno: $*"\\n' >package/deno && chmod +x package/deno && tar -czf package.tgz package &&
cp "$0" project/cli && echo '{}' >project/deno.lock && cd bin && for tool in sh env dirname readlink mkdir cmp cat cp rm mv sed uname \\
  node npm; do ln -s "$(command -v $tool)" $tool; done`,
      [slotcon],
      { cwd: folder },
    ).output();
    assert.ok(prepared.success, endingOf(prepared).err);
    const tarball = await Deno.readFile(join(folder, "package.tgz"));
    await using server = registry(tarball);
    const registryUrl = `http://127.0.0.1:${server.addr.port}/`;
    const launch = async () =>
      endingOf(
        await shell(
          'export PATH="$0" npm_config_registry="$1"; exec ./project/cli/slotcon --version',
          [join(folder, "bin"), registryUrl],
          { cwd: folder },
        ).output(),
      );
    const tools = () => Array.from(Deno.readDirSync(join(folder, "project/.tools")), ({ name }) => name);

    const refused = await launch();
    assert.equal(refused.code, 1);
    assert.match(refused.err, /integrity checksum failed|EINTEGRITY/);
    assert.match(refused.err, /^slotcon: npm could not get deno@2\.9\.6: .*$/m);
    assert.deepEqual([refused.out, tools()], ["", []]);

    const launcher = join(folder, "project/cli/slotcon");
    const hash = integrityOf(tarball).replace("sha512-", "");
    await Deno.writeTextFile(
      launcher,
      (await Deno.readTextFile(launcher)).replace(/hash=\S+/g, `hash=${hash}`),
    );
    const taken = await launch();
    assert.deepEqual([taken.code, tools()], [0, ["deno-2.9.6"]], taken.err);
    assert.match(taken.out, /^not Deno: .*main\.ts --version$/m);
  }),
});

Deno.test(
  "slotcon keeps its caches elsewhere where the project's folder cannot have them, and tune says that it cannot keep anything",
  inTestFolder(async (folder) => {
    // The project, with a file where its caches should be, as a user of another's project may not write there.
    const prepared = await shell(
      `mkdir project bin && ln -s "$1" bin/deno && for entry in "$0"/*; do ln -s "$entry" project; done && rm project/cli project/pipeline project/node_modules &&
cp -r "$0/cli" "$0/pipeline" project && { cp -al "$0/node_modules" project 2>/dev/null || cp -a "$0/node_modules" project; } && touch project/.cache`,
      [ROOT, Deno.execPath()],
      { cwd: folder },
    ).output();
    assert.ok(prepared.success, endingOf(prepared).err);
    const run = async (line: string) => {
      const env = { XDG_CACHE_HOME: join(folder, "caches") };
      const started = shell(`PATH=$PWD/bin:$PATH; ${line}`, [], { cwd: folder, env });
      return withoutVoice(endingOf(await started.output()));
    };
    const { code, err } = await run("unset DENO_DIR MESA_SHADER_CACHE_DIR; project/cli/slotcon --version");
    assert.deepEqual([code, err], [0, ""]);
    const caches = Array.from(Deno.readDirSync(join(folder, "caches/slotcon")), ({ name }) => name);
    assert.deepEqual(caches.sort(), ["deno", "mesa"]);

    const tuned = await run(
      "project/cli/slotcon tune --arch resnet18 --width 4 --image-size 32 --batch-size 4 --dim-hidden 8 --dim-out 8 --num-prototypes 4",
    );
    assert.equal(tuned.code, 1);
    assert.match(
      tuned.err,
      /^slotcon: tune: cannot keep its findings in ".*\.cache\/kernels\/.*\.json": .*$/m,
    );
  }),
);
