import { type Effect, Schema } from "effect";

/** Who watches while pictures are looked at. */
export interface Watcher {
  readonly progress: (stage: string, done: number, total: number) => Effect.Effect<void>;
  /** A picture is left out; the sentence names it. */
  readonly bad: (sentence: string) => Effect.Effect<void>;
}

export class NoImagesError extends Schema.TaggedError<NoImagesError>()("NoPictures", {}) {
  override get message() {
    return "There is nothing to show: none of the pictures can be decoded";
  }
}
