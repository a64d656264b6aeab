/** What all pages of slots share. */
import { Data, type Effect } from "effect";

/** Where the progress of a page goes. */
export interface Watcher {
  /** `done` of `total` images are through a stage. */
  readonly progress: (stage: string, done: number, total: number) => Effect.Effect<void>;
}

/** None of the images can be decoded. */
export class NoImagesError extends Data.Error {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "NoImagesError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return "There is nothing to show: none of the pictures can be decoded";
  }
}
