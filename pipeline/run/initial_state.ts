/** Initial values of a run's state. */
import { fillNormals, NORMAL_STEP } from "../../data/random/normals.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import type { Draw } from "../../ops/runtime/draw_normals.ts";
import type { Declared, StateBuilder } from "../model/state_builder.ts";
import { type StateTensor, type StateValues, turned } from "./state_layout.ts";

/** What tells the draws of initial values from the other draws of a seed. */
const INITIAL_VALUES = 1;

/** Initial values: `upload` has the device draw them; whoever asks for their `data` has the host draw the same bits. */
export class InitialTensor implements StateTensor {
  readonly shape: readonly number[];
  #data: Float32Array | null = null;

  constructor(readonly declared: Declared, readonly key: readonly number[]) {
    this.shape = declared.shape;
  }

  get isZero(): boolean {
    const { init } = this.declared;
    return init.kind === "constant" && init.value === 0;
  }

  /** What the device has to draw; null where all values are the same. */
  get draw(): Omit<Draw, "buffers"> | null {
    const { shape, init } = this.declared;
    if (init.kind === "constant") return null;
    return { count: sizeOf(shape), key: this.key, scale: init.deviation * NORMAL_STEP };
  }

  get data(): Float32Array {
    return this.#data ??= this.#drawn();
  }

  #drawn() {
    const { shape, storage, init } = this.declared;
    const data = new Float32Array(sizeOf(shape));
    if (init.kind === "constant") return data.fill(init.value);
    fillNormals(data, this.key, init.deviation); // in the device's layout, so that it can write one after the other
    return storage === "same" ? data : turned(data, shape, "toFile");
  }
}

/** Is it one of `initialState`? */
export const isInitial = (tensor: StateTensor | undefined) => tensor instanceof InitialTensor;

/** Initial values of all declared state, drawn when they are needed: the teacher starts as a copy of the student. */
export const initialState = (state: StateBuilder, seed: number): StateValues => {
  const values = new Map<string, StateTensor>();
  let index = 0;
  for (const declared of state.declared.values()) {
    const { name, shape, storage } = declared;
    if (storage === "running") {
      const at = name.slice(0, -"running".length);
      index++;
      values.set(`${at}running_mean`, { shape, data: new Float32Array(shape[0]) });
      values.set(`${at}running_var`, { shape, data: new Float32Array(shape[0]).fill(1) });
      values.set(`${at}num_batches_tracked`, { shape: [], data: new Float32Array(1) });
      continue;
    }
    const student = values.get(name.replace(/^(encoder|projector|grouping)_k\./, "$1_q."));
    values.set(name, student ?? new InitialTensor(declared, [seed, INITIAL_VALUES, index++]));
  }
  return values;
};
