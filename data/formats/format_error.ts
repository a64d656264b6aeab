import { Schema } from "effect";

/** A file that another tool wrote (or that a disk damaged) cannot be read: which file, and what is wrong with it. */
export class FormatError extends Schema.TaggedError<FormatError>()("FormatError", {
  file: Schema.String,
  reason: Schema.String,
}) {
  override get message() {
    return `Cannot read "${this.file}": ${this.reason}`;
  }
}
