/** A worker that draws normal numbers: all initial values of a large network would keep one thread busy for seconds. */
import { fillNormals } from "./random.ts";

export interface NormalsRequest {
  readonly id: number; // comes back with the reply
  readonly key: readonly number[];
  readonly deviation: number;
  readonly first: number; // even
  readonly count: number;
}

export type NormalsReply =
  | { readonly id: number; readonly kind: "normals"; readonly values: Float32Array }
  | { readonly id: number; readonly kind: "failure"; readonly reason: string };

/** This side of the channel to the main thread. */
declare const self: {
  onmessage: (message: { readonly data: NormalsRequest }) => void;
  postMessage(reply: NormalsReply, transfer: readonly ArrayBufferLike[]): void;
};

self.onmessage = ({ data: { id, key, count, ...which } }) => {
  const values = new Float32Array(count);
  fillNormals(values, key, which);
  self.postMessage({ id, kind: "normals", values }, [values.buffer]);
};
