import { Data } from "effect";

/** A file that another tool wrote (or that a disk damaged) cannot be read: which file, and what is wrong with it. */
export class FormatError extends Data.Error<{
  readonly subject: string;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "FormatError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot read "${this.subject}": ${this.reason}`;
  }
}

/** A value for an error. Texts of a hostile file may be long, and hold what a terminal acts on. */
export const shown = (value: unknown): string =>
  typeof value === "string"
    ? JSON.stringify(value.length > 200 ? `${value.slice(0, 200)}…` : value)
    : isObject(value)
    ? "an object"
    : String(value);

export const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null || typeof value === "function";
