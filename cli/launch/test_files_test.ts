import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "../../data/_test_kit.ts";
import { filesOfTests, testFiles, testNames } from "./test_files.ts";

Deno.test("testNames() finds tests in every file of this project's tests", () => {
  const root = join(import.meta.dirname!, "../..");
  const files = filesOfTests(root, "");
  assert.ok(files.length > 100);
  const without = files.filter((file) => {
    const { literal, computed } = testNames(Deno.readTextFileSync(join(root, file)));
    return literal.length === 0 && !computed;
  });
  assert.deepEqual(without, []);
});

Deno.test(
  "testFiles() leaves out files without a test that a filter can name",
  inTestFolder(async (folder) => {
    await Deno.mkdir(join(folder, "b"));
    await Deno.mkdir(join(folder, "node_modules"));
    const write = (file: string, text: string) => Deno.writeTextFile(join(folder, file), text);
    await write("a_test.ts", `Deno.test("a \\"quoted\\" name", () => {});\ngpuTest(\n  'another one',\n);`);
    await write("b/c_test.ts", "const kinds = ['odd'];\nDeno.test(`every ${kind} name`, () => {});");
    await write("b/d.ts", `Deno.test("a name", () => {});`);
    await write("node_modules/e_test.ts", `Deno.test("a name", () => {});`);
    const found = (filter: string) => testFiles(folder, filter);
    assert.deepEqual(found(`"quoted"`), ["a_test.ts"]);
    assert.deepEqual(found("/^another.*e$/"), ["a_test.ts"]);
    assert.deepEqual(found("/^other/"), []);
    assert.deepEqual(found("every odd"), ["b/c_test.ts"]);
    assert.deepEqual([...found("name")].sort(), ["a_test.ts", "b/c_test.ts"]);
    assert.deepEqual(found("nothing has this"), []);
    assert.throws(() => found("/(/"), SyntaxError);
  }),
);
