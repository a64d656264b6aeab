/** Initial values of a run's state. */
import { fillNormals, NORMAL_STEP } from "../../data/random/normals.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import type { Draw } from "../../ops/runtime/draw_normals.ts";
import type { Declared, StateBuilder } from "../model/state_builder.ts";
import { type StateTensor, type StateValues, statisticsNames, transposed } from "./state_layout.ts";

/** Tells the draws of initial values from the other draws of a seed. */
const INITIAL_VALUES = 1;

/** Initial values of one tensor: `upload` has the device draw them, while reading `data` draws the same bits on the host. */
export class InitialTensor implements StateTensor {
  /** Shape in checkpoints. */
  readonly shape: readonly number[];
  #data: Float32Array | null = null;

  /** The values of a declared tensor, of the draws of `key`. */
  constructor(readonly declared: Declared, readonly key: readonly number[]) {
    this.shape = declared.shape;
  }

  /** Are all values zero? */
  get isZero(): boolean {
    const { init } = this.declared;
    return init.kind === "constant" && init.value === 0;
  }

  /** The draw of these values on the device; null where all values are the same. */
  get draw(): Omit<Draw, "buffers"> | null {
    const { shape, init } = this.declared;
    if (init.kind === "constant") return null;
    return { count: sizeOf(shape), key: this.key, scale: init.deviation * NORMAL_STEP };
  }

  /** The values in PyTorch's layout. */
  get data(): Float32Array {
    return this.#data ??= this.#drawn();
  }

  #drawn() {
    const { shape, storage, init } = this.declared;
    const data = new Float32Array(sizeOf(shape));
    if (init.kind === "constant") return data.fill(init.value);
    fillNormals(data, this.key, init.deviation); // in the order of the device's layout
    return storage === "same" ? data : transposed(data, shape, "toFile");
  }
}

/** Is it one of `initialState`? */
export const isInitial = (tensor: StateTensor | undefined): boolean => tensor instanceof InitialTensor;

/**
 * Initial values of all declared state, drawn when they are needed. An average begins as a copy of the tensor that it
 * follows, running statistics with mean 0 and variance 1. Every other tensor has draws of its own, by its place in the
 * order of declaration.
 */
export const initialState = (state: StateBuilder, seed: number): StateValues => {
  const values = new Map<string, StateTensor>();
  let index = 0;
  for (const declared of state.declared.values()) {
    const { name, role, shape, storage } = declared;
    if (typeof role === "object") values.set(name, values.get(role.averageOf)!);
    else if (storage !== "running") {
      values.set(name, new InitialTensor(declared, [seed, INITIAL_VALUES, index++]));
    } else {
      const [mean, variance, batches] = statisticsNames(name);
      index++;
      values.set(mean, { shape, data: new Float32Array(shape[0]) });
      values.set(variance, { shape, data: new Float32Array(shape[0]).fill(1) });
      values.set(batches, { shape: [], data: new Float32Array(1) });
    }
  }
  return values;
};
