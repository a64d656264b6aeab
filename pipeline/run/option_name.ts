/**
 * An option has one name and three spellings: `--batch-size` on the command line, `batchSize` in TypeScript and in the
 * files we write, and `batch_size` in the published code's. Configuration files may use any of them.
 */

/** The form that all spellings of an option share: "batchsize". */
export const sharedSpelling = (name: string): string => name.replace(/[-_]/g, "").toLowerCase();

/** The spelling on the command line, without the hyphens in front: "batch-size". */
export const flagName = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
