/**
 * Device memory that programs share: slots for transient tensors, and batch inputs. Their contents do not outlive a
 * run, so that several programs, run one after the other, take the memory of the largest.
 *
 * The program with the largest plan determines the slots. The tensors of the others are placed into them anew, or,
 * where that leaves one without memory, the slots grow to the larger of both plans, each by its rank in size.
 */
import { Effect, Exit, Scope, Semaphore } from "effect";
import { allocateInto, type MemoryPlan, type Slot } from "../compiler/memory_plan.ts";
import type { Kernel } from "../graph/kernel.ts";
import { Gpu, type GpuError, STORAGE } from "./gpu.ts";

/** What a program needs of an arena. */
export interface Demand {
  /** Its slots and transient tensors. */
  readonly plan: Pick<MemoryPlan, "slots" | "transient">;
  /** Its kernels: what one reads must not share a slot with what it writes. */
  readonly kernels: readonly Kernel[];
  /** Bytes of its batch inputs, by name. Programs share inputs of one name. */
  readonly inputs: ReadonlyMap<string, number>;
}

/** Where an arena holds the tensors of a program. */
export interface Placement {
  /** Buffer and offset (bytes) of each transient tensor, by its storage. */
  readonly tensors: ReadonlyMap<number, { readonly buffer: GPUBuffer; readonly offset: number }>;
  /** Buffers of batch inputs, by name. */
  readonly inputs: ReadonlyMap<string, GPUBuffer>;
}

/** A program's share of an arena. */
export interface Share {
  /**
   * Creates the buffers that are missing, and destroys those that no longer fit: only within `exclusively`. The result
   * is the same object as before, unless a buffer has been replaced since. Fails with GpuError.
   */
  readonly placement: Effect.Effect<Placement, GpuError>;
  /** Runs an effect that uses the arena's memory while no other program does. */
  readonly exclusively: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>;
}

/** Transient memory and batch inputs of several programs. */
export interface Arena {
  /** Adds a program, until the scope ends. */
  readonly join: (demand: Demand) => Effect.Effect<Share, never, Scope.Scope>;
}

/** A program of an arena, and its placement in version `seen` of the arena. */
interface Member extends Demand {
  seen: number;
  placement: Placement | null;
}

/** An arena without programs; its buffers live as long as the scope at most. */
export const makeArena: Effect.Effect<Arena, never, Gpu | Scope.Scope> = Effect.gen(function* () {
  const buffers = yield* heldBuffers;
  const semaphore = Semaphore.makeUnsafe(1);
  const members = new Set<Member>();
  let largest: Member | null = null;
  let slotBytes: number[] = [];
  let version = 0; // counts changes of what buffers are wanted

  const settle = () => {
    largest = null;
    for (const member of members) {
      if (largest === null || bytesOfSlots(member) > bytesOfSlots(largest)) largest = member;
    }
    slotBytes = (largest?.plan.slots ?? []).map(({ bytes }) => bytes);
    version++;
  };
  const placed = (member: Member): readonly Slot[] => {
    const { plan, kernels } = member;
    if (member === largest) return plan.slots;
    const fitting = allocateInto(slotBytes, plan, kernels);
    if (fitting !== null) return fitting;
    plan.slots.forEach(({ bytes }, i) => slotBytes[i] = Math.max(slotBytes[i] ?? 0, bytes));
    version++;
    return plan.slots;
  };
  const wanted = () => {
    const bytes = new Map(slotBytes.map((bytes, i) => [slotKey(i), bytes]));
    for (const { inputs } of members) {
      for (const [name, needed] of inputs) {
        bytes.set(inputKey(name), Math.max(needed, bytes.get(inputKey(name)) ?? 0));
      }
    }
    return bytes;
  };
  const place = Effect.fnUntraced(function* (member: Member) {
    const slots = placed(member);
    const bytes = wanted();
    yield* buffers.keepOnly(bytes);
    const tensors = new Map<number, { buffer: GPUBuffer; offset: number }>();
    for (const [i, { name, allocations }] of slots.entries()) {
      if (allocations.length === 0) continue;
      const key = slotKey(i);
      const buffer = yield* buffers.hold(key, name, bytes.get(key)!, STORAGE | GPUBufferUsage.INDIRECT);
      for (const { storage, offset } of allocations) tensors.set(storage, { buffer, offset });
    }
    const inputs = new Map<string, GPUBuffer>();
    for (const name of member.inputs.keys()) {
      const key = inputKey(name);
      inputs.set(name, yield* buffers.hold(key, name, bytes.get(key)!, STORAGE));
    }
    return { tensors, inputs };
  });

  const join: Arena["join"] = Effect.fnUntraced(function* (demand) {
    const member: Member = { ...demand, seen: -1, placement: null };
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        members.add(member);
        settle();
      }),
      () =>
        Effect.sync(() => {
          members.delete(member);
          settle();
        }),
    );
    return {
      exclusively: semaphore.withPermit,
      placement: Effect.gen(function* () {
        if (member.placement !== null && member.seen === version) return member.placement;
        const placement = yield* place(member);
        member.seen = version;
        return member.placement = placement;
      }),
    };
  });
  return { join };
});

const bytesOfSlots = ({ plan }: Demand) => plan.slots.reduce((total, { bytes }) => total + bytes, 0);

const slotKey = (index: number) => `slot ${index}`;
const inputKey = (name: string) => `input ${name}`;

/** Buffers by keys, each until a buffer of another size is wanted under its key, or the scope ends. */
const heldBuffers = Effect.gen(function* () {
  const gpu = yield* Gpu;
  const outer = yield* Effect.scope;
  const held = new Map<string, { bytes: number; buffer: GPUBuffer; scope: Scope.Closeable }>();
  return {
    /** Destroys all buffers but those of the size wanted under their key. Work submitted before may still use them. */
    keepOnly: Effect.fnUntraced(function* (wanted: ReadonlyMap<string, number>) {
      for (const [key, { bytes, scope }] of held) {
        if (wanted.get(key) === bytes) continue;
        held.delete(key);
        yield* Scope.close(scope, Exit.void);
      }
    }),
    hold: Effect.fnUntraced(function* (key: string, label: string, bytes: number, usage: number) {
      const known = held.get(key);
      if (known !== undefined) return known.buffer;
      const scope = yield* Scope.fork(outer);
      const buffer = yield* Scope.provide(gpu.buffer(label, bytes, usage), scope);
      held.set(key, { bytes, buffer, scope });
      return buffer;
    }),
  };
});
