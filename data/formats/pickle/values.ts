/** What a pickle holds, and what stands for the names in it. */

/**
 * What a pickle holds. Whole numbers beyond 2^53 are bigints; tuples and lists are arrays. `Leaf` is what the caller's
 * functions make.
 */
export type PickleValue<Leaf = never> =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array<ArrayBuffer>
  | PickleValue<Leaf>[]
  | Map<PickleValue<Leaf>, PickleValue<Leaf>>
  | Set<PickleValue<Leaf>>
  | Leaf;

/** A `collections.OrderedDict`, to be told from a dict. */
export class OrderedDict<K, V> extends Map<K, V> {}

/** Bytes that were left in the file, since they are many. */
export class BytesInFile {
  constructor(readonly offset: number, readonly length: number) {}
}

/** What to do with the parts of a pickle that are not plain data. All of these refuse it by `refuse()`. */
export interface Unpickling<Leaf> {
  /** By "module.name": a function of the arguments, or a constant. Bytes among the arguments may be `BytesInFile`. */
  readonly globals: ReadonlyMap<string, unknown>;
  /** What the pickle stores elsewhere, by the name it uses there. */
  readonly persistent?: (id: unknown) => unknown;
  /** Sets the state of a value that a function of `globals` made. */
  readonly setState?: (value: unknown, state: unknown) => void;
  /** Whether a value that is not plain data may stay; `path` are the keys that lead to it. */
  readonly isLeaf?: (value: object, path: () => string) => value is Leaf & object;
}

// A reason to refuse a file, thrown where the file's name is not known.
export class Refusal extends Error {}

/** Refuses a file, from within the functions of an `Unpickling` too. */
export const refuse = (reason: string): never => {
  throw new Refusal(reason);
};

/** A number where it is exact. */
export const whole = (value: bigint): number | bigint =>
  Number.isSafeInteger(Number(value)) ? Number(value) : value;
