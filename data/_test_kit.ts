/** What tests share that need no device: folders, pictures, other programs. */
import { join } from "node:path";
import process from "node:process";
import { Effect, type Scope } from "effect";
import sharp from "sharp";
import type { Picture } from "./images/decode_image.ts";
import { randomStream } from "./random/random.ts";

/** A test's body with an empty folder of its own, which is gone afterwards. */
export const inTestFolder =
  (test: (folder: string) => void | Promise<void>): () => Promise<void> => async () => {
    const folder = await Deno.makeTempDir();
    try {
      await test(folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  };

/** An empty folder that is gone at the end of the scope. */
export const testFolder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(() => Deno.makeTempDir()),
  (folder) => Effect.promise(() => Deno.remove(folder, { recursive: true })),
);

/** Seconds that this process has computed on any core: what others do on the machine does not count, as it does by the clock. */
export const secondsComputed = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

interface NoiseOptions {
  readonly count?: number;
  readonly name?: (i: number) => string; // whatever its suffix says
  readonly size?: (i: number) => readonly [width: number, height: number];
  readonly format?: (i: number) => "png" | "jpeg";
}

/** Makes the folder if it is not there, and writes small pictures of noise into it, of different sizes; their paths. */
export const writeNoise = async (
  folder: string,
  {
    count = 12,
    name = (i) => `${i}.png`,
    size = (i) => [48 + i, 60 - i],
    format = () => "png",
  }: NoiseOptions = {},
): Promise<string[]> => {
  await Deno.mkdir(folder, { recursive: true });
  const files = Array.from({ length: count }, (_, i) => join(folder, name(i)));
  for (const [i, file] of files.entries()) {
    const random = randomStream(7, i);
    const [width, height] = size(i);
    const rgb = Uint8Array.from({ length: width * height * 3 }, () => random.integer(256));
    await writeImage(file, { width, height, rgb }, format(i));
  }
  return files;
};

/** Writes an image file. */
export const writeImage = async (
  file: string,
  { width, height, rgb }: Picture,
  format: "png" | "jpeg" = "png",
): Promise<void> => {
  await sharp(rgb, { raw: { width, height, channels: 3 } }).toFormat(format).toFile(file);
};

/** A line of shell with arguments from $0 on; the shell is one of the few programs that the tests may start. */
export const shell = (
  line: string,
  args: readonly string[] = [],
  options: { readonly cwd?: string; readonly env?: Record<string, string>; readonly stdin?: "piped" } = {},
): Deno.Command =>
  new Deno.Command("sh", {
    args: ["-c", line, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    ...options,
  });

/** Flags of Deno for a library that only tests use: it comes from Deno's cache and is none of the project's. */
const APART: readonly string[] = ["--no-config", "--no-lock", "--node-modules-dir=none"];

/** A script that imports a library which only tests use, to be run as another process. */
export const scriptApart = (
  script: string,
  permissions: readonly string[],
  args: readonly string[],
): Deno.Command =>
  new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", "--cached-only", ...APART, ...permissions, script, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });

/** What to say where such a library does not load. */
export const missingApart = (name: string, specifier: string): string =>
  `${name} does not load from Deno's cache; to get it: deno cache ${APART.join(" ")} ${specifier}`;

/** How a program ended. */
export interface Ending {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** What a program printed, as text. */
export const endingOf = ({ code, stdout, stderr }: Deno.CommandOutput): Ending => {
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
};
