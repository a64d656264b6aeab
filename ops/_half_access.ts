/**
 * Kernels are written in f32. For operands that are stored in f16 their text is changed: what they read is widened, what
 * they write is narrowed, to the nearest (beyond 65504 to infinity).
 */

/** WGSL whose accesses to the storage array `name` convert; `reads` says whether any of them reads. */
export const halfAccess = (
  code: string,
  name: string,
  vector: boolean,
): { readonly code: string; readonly reads: boolean } => {
  const [wide, narrow] = vector ? ["vec4<f32>", "vec4<f16>"] : ["f32", "f16"];
  let reads = false;
  const changed = eachAccess(withoutComments(code), name, (index, rest) => {
    const element = `${name}[${index}]`;
    const [assignment, part, operator] = rest.match(/^\s*(\.\w+|\[[^\]]*\])?\s*([-+*/]?)=(?!=)/) ?? [];
    if (assignment === undefined) {
      reads = true;
      return { text: `${wide}(${element})`, taken: 0 };
    }
    if (operator !== "") throw new Error(`a kernel adds to ${name} in memory: use a variable, which is f32`);
    const end = rest.indexOf(";");
    const value = halfAccess(rest.slice(assignment.length, end), name, vector);
    reads ||= value.reads;
    return {
      text: `${element}${part ?? ""} = ${part === undefined ? narrow : "f16"}(${value.code.trim()})`,
      taken: end,
    };
  });
  return { code: changed, reads };
};

/**
 * WGSL whose reads of the uniform array `name` call the function that `declaration` adds: f16 has to come in pairs there,
 * as elements of uniform arrays are multiples of 16 bytes.
 */
export const halfUniform = (
  code: string,
  name: string,
): { readonly code: string; readonly functions: string } => ({
  code: eachAccess(withoutComments(code), name, (index) => ({ text: `${name}_at(${index})`, taken: 0 })),
  functions: `fn ${name}_at(i: u32) -> vec4<f32> {
  let two = ${name}[i / 2u];
  let own = select(two.xy, two.zw, i % 2u == 1u);
  return vec4<f32>(unpack2x16float(own.x), unpack2x16float(own.y));
}`,
});

const withoutComments = (code: string) => code.replace(/\/\/.*/g, "");

/** Replaces every `name[index]`, and what `replacement` takes of the text behind it; accesses in `index` first. */
const eachAccess = (
  code: string,
  name: string,
  replacement: (index: string, rest: string) => { readonly text: string; readonly taken: number },
): string => {
  const access = new RegExp(`(?<![\\w.])${name}\\s*\\[`, "g");
  let result = "";
  let at = 0;
  for (let match = access.exec(code); match !== null; match = access.exec(code)) {
    const end = closing(code, access.lastIndex);
    const index = eachAccess(code.slice(access.lastIndex, end), name, replacement);
    const { text, taken } = replacement(index, code.slice(end + 1));
    result += code.slice(at, match.index) + text;
    at = access.lastIndex = end + 1 + taken;
  }
  return result + code.slice(at);
};

/** Where the bracket is closed that was opened before `from`. */
const closing = (code: string, from: number): number => {
  let depth = 1;
  let at = from;
  while (depth > 0) {
    if (at === code.length) throw new Error(`a bracket is not closed: ${code.slice(from - 20)}`);
    if (code[at] === "[") depth++;
    if (code[at] === "]") depth--;
    at++;
  }
  return at - 1;
};
