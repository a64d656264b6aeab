/**
 * The networks of SlotCon: the student and the teacher, each with encoder, projector and prototypes (docs/method.md,
 * sections 1 to 3).
 */
import { add, mul, sub } from "../../ops/arithmetic.ts";
import { stopGradient, type Tensor } from "../../ops/graph/tensor.ts";
import { type HeadSizes, projector } from "./heads.ts";
import { type Network, parameter, type Training, within } from "./network.ts";
import { encoder, type EncoderOptions } from "./resnet.ts";
import type { StateBuilder } from "./state_builder.ts";

/** Sizes of the networks. */
export interface ModelOptions extends EncoderOptions, HeadSizes {
  /** Prototypes K. */
  readonly numPrototypes: number;
}

/** What one side, student or teacher, computes from the views. */
export interface Projected {
  /** Encoder output [N, h, w, C]. */
  readonly features: Tensor;
  /** Projector output [N, h, w, dimOut]. */
  readonly projections: Tensor;
  /** Prototypes [K, dimOut]. */
  readonly prototypes: Tensor;
}

/**
 * Images [N, S, S, 3] through one side: the student, whose parts are named `encoder_q`, `projector_q` and `grouping_q`, or
 * the teacher, whose names have `_k` instead.
 */
export const forward = (
  network: Network,
  side: "q" | "k",
  images: Tensor,
  model: ModelOptions,
): Projected => {
  const features = encoder(within(network, `encoder_${side}`), images, model);
  const projections = projector(within(network, `projector_${side}`), features, model);
  const shape = [model.numPrototypes, model.dimOut];
  const init = { kind: "normal", deviation: 1 } as const;
  const grouping = within(network, `grouping_${side}`);
  return { features, projections, prototypes: parameter(grouping, "slot_embed.weight", shape, "same", init) };
};

/** A network whose parameters are trained by gradient; `training: null` normalises by running statistics. */
export const student = (state: StateBuilder, training: Training | null): Network => ({
  state,
  prefix: "",
  parameter: (name, declaration) => state.declare(name, { ...declaration, role: "trained" }),
  training,
});

/**
 * The teacher, to be built after the student: every parameter becomes m·teacher + (1 − m)·student before the teacher's
 * own forward pass (docs/method.md, section 3), where m is `momentum` []; its running statistics are its own. No gradient
 * flows into it. Throws a DeclarationError where the student lacks a parameter.
 */
export const teacher = (state: StateBuilder, training: Training | null, momentum: Tensor): Network => ({
  state,
  prefix: "",
  training,
  parameter: (name, declaration) => {
    const averageOf = name.replace("_k.", "_q.");
    const own = state.declare(name, { ...declaration, role: { averageOf } });
    const known = state.updates.get(own);
    if (known !== undefined) return stopGradient(known);
    const next = add(mul(momentum, own), mul(sub(1, momentum), state.declared.get(averageOf)!.tensor));
    state.updates.set(own, next);
    return stopGradient(next);
  },
});
