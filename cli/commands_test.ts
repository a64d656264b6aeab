/** What commands accept beside what the launcher lets them touch. */
import assert from "node:assert/strict";
import { commands } from "./commands.ts";
import { accessOf } from "./launch/access.ts";
import { permissionFlags } from "./launch/permissions.ts";

/** A parameter of a command, as `effect/cli` holds it: what makes it optional or gives it a default is around it. */
interface Parameter {
  readonly name: string;
  readonly primitiveType: { readonly _tag: string };
  readonly param?: Parameter;
}
interface Definition {
  readonly name: string;
  readonly config: { readonly flags: readonly Parameter[]; readonly arguments: readonly Parameter[] };
  readonly subcommands: readonly { readonly commands: readonly Definition[] }[];
}

const innermost = (parameter: Parameter): Parameter =>
  parameter.param === undefined ? parameter : innermost(parameter.param);

/** The commands that do something, each with the words that call it. */
const leaves = (command: Definition, before: readonly string[] = []): [string[], Definition][] => {
  const words = [...before, command.name];
  const below = command.subcommands.flatMap(({ commands }) => commands);
  const itself: [string[], Definition][] = below.length === 0 || command.config.flags.length > 0
    ? [[words, command]]
    : [];
  return [...itself, ...below.flatMap((command) => leaves(command, words))];
};

const all = Object.values(commands).flatMap((command) => leaves(command as unknown as Definition)).map(
  ([words, { config }]) => ({
    words,
    flags: config.flags.map(innermost),
    operands: config.arguments.map(innermost),
  }),
);

const isSwitch = ({ primitiveType }: Parameter) => primitiveType._tag === "Boolean";
const isText = ({ primitiveType }: Parameter) => !/^(Boolean|Choice|Int|Finite)$/.test(primitiveType._tag);

/** Parameters that hold text and name neither a path nor a host. */
const NAMES_NOTHING = ["device", "filter", "idxs", "k", "memory-limit", "milestones", "traits"];
/** Paths and hosts that a command accepts as one of a run's options, and has no use for. */
const UNUSED: Record<string, readonly string[]> = {
  doctor: ["otlp"],
  tune: ["otlp", "output-dir"],
};

Deno.test("the launcher knows which flags take no value, of all commands with operands", () => {
  for (const [name, variants] of Map.groupBy(all, ({ words: [name] }) => name)) {
    if (variants.every(({ operands }) => operands.length === 0)) continue;
    const switches = variants.flatMap(({ flags }) => flags.filter(isSwitch).map(({ name }) => name));
    assert.deepEqual([...accessOf(name).switches ?? []].sort(), [...new Set(switches)].sort(), name);
  }
});

Deno.test("the launcher lets a command touch every path and host that its flags and operands name", async () => {
  for (const { words, flags, operands } of all) {
    const lets = async (...args: string[]) =>
      (await permissionFlags([...words, ...args])).some((flag) => flag.includes("probe"));
    const namesSomething = (parameter: Parameter) =>
      isText(parameter) && ![...NAMES_NOTHING, ...UNUSED[words[0]] ?? []].includes(parameter.name);
    const message = (parameter: string) => `${words.join(" ")} ${parameter} is not in launch/access.ts`;
    for (const { name } of flags.filter(namesSomething)) {
      const tried = ["/probe/x.json", "probe", "http://probe"].map((value) => lets(`--${name}`, value));
      assert.ok((await Promise.all(tried)).includes(true), message(`--${name}`));
    }
    for (const [i, { name }] of operands.entries()) {
      if (!namesSomething(operands[i])) continue;
      assert.ok(await lets(...Array(i).fill("other"), "/probe/x"), message(name));
    }
  }
});
