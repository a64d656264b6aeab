/**
 * Kernels are written in f32. For operands that are stored in f16 their text is changed: what they read is widened, what
 * they write is narrowed, to the nearest (beyond 65504 to infinity). vec4s are pairs of packed words.
 */
import type { Narrowing } from "../graph/kernel.ts";

/** The element type of an array of f16, or of vec4s of them. */
export const halfElement = (vector: boolean): string => vector ? "vec2<u32>" : "f16";

/**
 * WGSL whose accesses to the array `name` of `halfElement`s convert. What is written must not be read again: a sum that
 * several kernels, or turns of a loop, keep there would be rounded each time.
 */
export const halfAccess = (code: string, name: string, vector: boolean, access: "read" | "write"): string => {
  const change = (text: string): string =>
    eachAccess(text, name, (index, rest) => {
      const element = `${name}[${index}]`;
      if (access === "read") {
        return { text: vector ? `widened(${element})` : `f32(${element})`, taken: 0 };
      }
      const [assignment] = rest.match(/^\s*=(?!=)/) ?? [];
      if (assignment === undefined) {
        throw new Error(
          `a kernel reads ${name} that it writes, in f16: keep sums in variables or in scratch memory`,
        );
      }
      const end = rest.indexOf(";");
      const value = change(rest.slice(assignment.length, end)).trim();
      return { text: `${element} = ${vector ? "narrowed" : "f16"}(${value})`, taken: end };
    });
  return change(code.replace(/\/\/.*/g, "")); // comments may look like code
};

/** WGSL: what such accesses to vectors call. */
export const conversions = (narrowing: Narrowing): string => `
fn widened(words: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
fn narrowed(x: vec4<f32>) -> vec2<u32> {${narrowing === "native" ? NATIVE : BY_INTEGERS}}`;

const NATIVE = "return vec2<u32>(pack2x16float(x.xy), pack2x16float(x.zw));";

// To the nearest, of two to the even one: for normal numbers by a carry into the bits that stay; below 2^-14 by an addition
// whose last bit is worth 2^-24.
const BY_INTEGERS = `
  let bits = bitcast<vec4<u32>>(x);
  let size = bits & vec4<u32>(0x7fffffffu);
  let even = (size >> vec4<u32>(13u)) & vec4<u32>(1u);
  let normal = (size + even + vec4<u32>(0xc8000fffu)) >> vec4<u32>(13u);
  let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(size) + vec4<f32>(0.5)) - vec4<u32>(0x3f000000u);
  let beyond = select(vec4<u32>(0x7c00u), vec4<u32>(0x7e00u), size > vec4<u32>(0x7f800000u));
  let finite = select(normal, small, size < vec4<u32>(0x38800000u));
  let half = select(finite, beyond, size >= vec4<u32>(0x477ff000u)) | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
  return half.xz | (half.yw << vec2<u32>(16u));
`;

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
