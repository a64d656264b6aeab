/** The forward stage: both views through the student's and the teacher's encoder and projector. */
import { add, mul, sub } from "../../ops/arithmetic.ts";
import { stopGradient, type Tensor } from "../../ops/graph/tensor.ts";
import { type HeadSizes, projector } from "./heads.ts";
import { type Network, type Training, within } from "./network.ts";
import { encoder, type EncoderOptions } from "./resnet.ts";
import type { StateBuilder } from "./state_builder.ts";

export interface ModelOptions extends EncoderOptions, HeadSizes {
  readonly numPrototypes: number;
}

/** What one side, student or teacher, makes of the views. */
export interface Projected {
  /** Encoder output [N, h, w, C]. */
  readonly features: Tensor;
  /** Projector output [N, h, w, dimOut]. */
  readonly projections: Tensor;
  /** Prototypes [K, dimOut]. */
  readonly prototypes: Tensor;
}

/** Images [N, S, S, 3] through one side, whose names end in `side`: encoder_q, projector_q, grouping_q. */
export const forward = (
  network: Network,
  side: "q" | "k",
  images: Tensor,
  model: ModelOptions,
): Projected => {
  const features = encoder(within(network, `encoder_${side}`), images, model);
  const projections = projector(within(network, `projector_${side}`), features, model);
  const grouping = within(network, `grouping_${side}`);
  const name = `${grouping.prefix}slot_embed.weight`;
  const init = { kind: "normal", deviation: 1 } as const;
  const embed = network.state.declare(name, [model.numPrototypes, model.dimOut], "same", init);
  return { features, projections, prototypes: network.value(embed, name) };
};

export const student = (state: StateBuilder, training: Training | null): Network => ({
  state,
  prefix: "",
  value: (declared) => declared,
  training,
});

/**
 * The teacher: every parameter becomes m·teacher + (1 − m)·student before its own forward pass (method.md, section 3);
 * statistics are its own. No gradient flows into it.
 */
export const teacher = (state: StateBuilder, training: Training, momentum: Tensor): Network => ({
  state,
  prefix: "",
  training,
  value: (declared, name) => {
    const known = state.updates.get(declared);
    if (known !== undefined) return stopGradient(known);
    const own = state.declared.get(studentName(name));
    if (own === undefined) throw new Error(`the student has no ${studentName(name)}`);
    const next = add(mul(momentum, declared), mul(sub(1, momentum), own.tensor));
    state.updates.set(declared, next);
    return stopGradient(next);
  },
});

const studentName = (name: string) => name.replace(/^(encoder|projector|grouping)_k\./, "$1_q.");
