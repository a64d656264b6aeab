/** Which files hold the tests that a filter names, as far as their text tells: loading all files takes longer than most tests. */
import { join } from "node:path";

/** The names of tests as a file spells them. */
export interface TestNames {
  /** Names that are written out. */
  readonly literal: readonly string[];
  /** Whether there are others, which the file makes when it is loaded. */
  readonly computed: boolean;
}

/** A call that declares a test, up to its name; the name is empty where it is no plain string. */
const TEST =
  /\b(?:Deno\.test|(?!is)[a-z]\w*Test)\(\s*(?:\{\s*name:?\s*)?("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\$]|\\.)*`|)/g;

/** The names of the tests in the text of a file. */
export const testNames = (text: string): TestNames => {
  const names = Array.from(text.matchAll(TEST), ([, name]) => name);
  return {
    literal: names.filter((name) => name !== "").map((name) => name.slice(1, -1).replace(/\\(.)/gs, "$1")),
    computed: names.includes(""),
  };
};

/**
 * The files of tests below a folder, relative to it, that may hold a test whose name contains `filter`, or matches it where
 * it is an /expression/. A file that computes names may hold one where any word of the filter occurs in it. Throws a
 * `SyntaxError` where the expression is none.
 */
export const testFiles = (root: string, filter: string): readonly string[] => {
  const [, source] = filter.match(/^\/(.*)\/$/s) ?? [];
  const expression = source === undefined ? null : new RegExp(source);
  const matches = (name: string) => expression === null ? name.includes(filter) : expression.test(name);
  const words = filter.match(/[\p{L}\p{N}_]{3,}/gu) ?? [""];
  return filesOfTests(root, "").filter((file) => {
    const text = Deno.readTextFileSync(join(root, file));
    const { literal, computed } = testNames(text);
    return literal.some(matches) || computed && words.some((word) => text.includes(word));
  });
};

/** All files of tests below a folder, relative to `root`. */
export const filesOfTests = (root: string, folder: string): readonly string[] =>
  [...Deno.readDirSync(join(root, folder))].flatMap(({ name, isDirectory }) => {
    if (isDirectory) {
      return /^(\.|node_modules$|runs$|output$)/.test(name) ? [] : filesOfTests(root, join(folder, name));
    }
    return name.endsWith("_test.ts") ? [join(folder, name)] : [];
  });
