/** Kinds of options: how each is written on a command line and checked. */
import { Schema } from "effect";
import { bytesIn } from "./bytes.ts";

/** One option of a run. The command line's flags and the check of configuration files are made from this. */
export interface Option<A> {
  readonly kind: "choice" | "path" | "url" | "device" | "size" | "integer" | "number" | "switch"; // how it is written on a command line
  readonly schema: Schema.Codec<NonNullable<A>>;
  readonly initial: A; // null where it may be left open
  readonly help: string;
  readonly choices?: readonly string[];
}

export const choice = <A extends string>(choices: readonly A[], initial: A, help: string): Option<A> => (
  { kind: "choice", schema: Schema.Literals(choices), initial, help, choices }
);
export const path = (initial: string, help: string): Option<string> => (
  { kind: "path", schema: Schema.NonEmptyString, initial, help }
);
export const url = (initial: string, help: string): Option<string> => (
  { kind: "url", schema: Schema.String.check(httpUrl), initial, help }
);
export const device = (initial: string, help: string): Option<string> => (
  { kind: "device", schema: Schema.String.check(webgpu), initial, help }
);
export const size = (initial: string, help: string): Option<string> => (
  { kind: "size", schema: Schema.String.check(byteSize), initial, help }
);
export const onOff = (initial: boolean, help: string): Option<boolean> => (
  { kind: "switch", schema: Schema.Boolean, initial, help }
);
export const integer = <A extends number>(initial: A, schema: Schema.Codec<A>, help: string): Option<A> => (
  { kind: "integer", schema, initial, help } as Option<A>
);
export const number = (initial: number, check: Check, help: string): Option<number> => (
  { kind: "number", schema: Schema.Finite.check(check), initial, help }
);
export const open = <A>(option: Option<A>): Option<A | null> =>
  ({ ...option, initial: null }) as Option<A | null>;

type Check = ReturnType<typeof Schema.isGreaterThan>;
export const above = Schema.isGreaterThan;
export const between = (minimum: number, maximum: number, exclude: object = {}) =>
  Schema.isBetween({ minimum, maximum, ...exclude });
const httpUrl = Schema.makeFilter<string>(
  (text) => /^https?:$/.test(URL.parse(text)?.protocol ?? ""),
  { expected: "a URL such as http://localhost:4318" },
);
const webgpu = Schema.makeFilter<string>(
  (text) => /^(native|dawn)(:[^,]+(,[^,]+)*)?$/.test(text),
  { expected: '"native" or "dawn", or with adapters "native:0,1"' },
);
const byteSize = Schema.makeFilter<string>((text) => bytesIn(text) > 0, {
  expected: 'a size such as "8GiB"',
});
export const atLeast = (minimum: number) => Schema.Int.check(Schema.isGreaterThanOrEqualTo(minimum));

/** Something is wrong with an option: where it was given, and what to write instead. */
export class ConfigError extends Schema.TaggedError<ConfigError>()("ConfigError", {
  where: Schema.String, // "--batch-size", or a line of a file
  problem: Schema.String,
}) {
  override get message() {
    return `${this.where}: ${this.problem}`;
  }
}

export const lowerFirst = (sentence: string) => sentence.charAt(0).toLowerCase() + sentence.slice(1);
