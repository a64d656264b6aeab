/**
 * What the published code's checkpoints mean to a pretraining run, and how a run is written as one (docs/method.md, section
 * 10). Reading the file itself is weights/published_file.ts.
 */
import { Effect } from "effect";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import { OrderedDict } from "../../data/formats/pickle/values.ts";
import { Float, type PickleInput } from "../../data/formats/pickle/write.ts";
import { constant, input } from "../../ops/graph/tensor.ts";
import { predictor } from "../model/heads.ts";
import { within } from "../model/network.ts";
import { forward, type ModelOptions, student, teacher } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { BACKOFF, GROWTH, GROWTH_INTERVAL, INITIAL_SCALE, SCALER } from "../optim/loss_scale.ts";
import { isBuiltIn, OPTIMIZERS } from "../optim/optimizers.ts";
import { FLOOR_RATE, learningRate, planSchedule, teacherCounter } from "../optim/schedule.ts";
import { sharedSpelling } from "../run/option_name.ts";
import { checkpointShapes, type StateTensor } from "../run/state_layout.ts";
import { integerIn, isInHalf, type Published } from "../weights/published_file.ts";
import { type Config, configure, type OptionName, optionNames } from "./config.ts";
import type { PretrainMeta, RecordedConfig } from "./task.ts";

/** The configuration of a published run, as far as its arguments are options here; the width is not among them. */
export const publishedConfig = ({ args }: Published, width: number): Config => {
  const settings = new Map<OptionName, { value: unknown; where: string }>([
    ["width", { value: width, where: "model" }],
    ["precision", { value: isInHalf(args) ? "f16" : "f32", where: "args.fp16" }],
  ]);
  for (const [name, value] of args) {
    const option = optionNames.find((option) => sharedSpelling(option) === sharedSpelling(name));
    if (option !== undefined) settings.set(option, { value, where: `args.${name}` });
  }
  // A value that the option does not allow, such as no seed, leaves it at its default.
  for (const [option, setting] of settings) {
    const alone = Effect.runSync(Effect.result(configure(null, new Map([[option, setting]]))));
    if (alone._tag === "Failure") settings.delete(option);
  }
  return Effect.runSync(configure(null, settings));
};

/**
 * Adds zeros for the buffers that the optimiser has not made yet, of the tensors that `state` declares trained: PyTorch
 * makes them when they are first needed.
 */
export const withAllVelocities = (
  tensors: ReadonlyMap<string, StateTensor>,
  state: StateBuilder,
): ReadonlyMap<string, StateTensor> => {
  const all = new Map(tensors);
  for (const { name, role } of state.declared.values()) {
    const tensor = tensors.get(name);
    const velocity = `optimizer.${name}`;
    if (role !== "trained" || tensor === undefined || all.has(velocity)) continue;
    all.set(velocity, { shape: tensor.shape, data: new Float32Array(tensor.data.length) });
  }
  return all;
};

/**
 * How far a published run is, as checkpoints of this project say it; null where its arguments do not tell the size of the
 * data set. Its teacher's counter is the one with which the published code resumes (docs/method.md, section 3).
 */
export const publishedMeta = (published: Published, width: number): PretrainMeta | null => {
  const instances = integerIn(published.args.get("num_instances"));
  const world = integerIn(published.args.get("world_size")) ?? 1;
  if (instances === null || instances < 1 || world < 1) return null;
  const config = publishedConfig(published, width);
  const options = { ...config, world, instances };
  const step = published.steps ?? published.epoch * planSchedule(options).stepsPerEpoch;
  return { step, teacherCounter: teacherCounter(options, published.epoch), instances, config };
};

/**
 * A checkpoint of this project as the published code saves it. `args` is a dict, so that PyTorch's safe loading takes the
 * file; the published code reads its arguments from the command line. It resumes at whole epochs, `epoch` of which are
 * done. Throws where the run has an optimiser that the published code lacks.
 */
export const publishedContents = (
  meta: PretrainMeta,
  tensors: ReadonlyMap<string, FileTensor>,
): PickleInput => {
  const { config, instances, step } = meta;
  if (!isBuiltIn(config.optimizer)) {
    throw new RangeError(`its optimiser is ${config.optimizer}, which the published code lacks`);
  }
  const { buffer, options } = OPTIMIZERS[config.optimizer].published;
  const schedule = planSchedule({ ...config, world: 1, instances });
  const declared = publishedState(config);
  const model = publishedOrder(declared).filter((name) => tensors.has(name));
  const parameters = model.filter((name) => isParameter(declared, name));
  const state = new Map<number, PickleInput>();
  parameters.forEach((name, index) => {
    const velocity = tensors.get(`optimizer.${name}`);
    if (velocity !== undefined) state.set(index, new Map([[buffer, velocity]]));
  });
  const rate = { lr: new Float(learningRate(step, schedule)), initial_lr: new Float(schedule.peakRate) };
  const shared = { weight_decay: new Float(config.weightDecay), momentum: new Float(config.momentum) };
  const group = { ...rate, ...shared, ...options };
  const args = Object.fromEntries(
    Object.entries(config).map((
      [name, value],
    ) => [name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]),
  );
  const scaled = (name: string, otherwise: number) => Number(tensors.get(name)?.data[0] ?? otherwise);
  const runs = { fp16: config.precision === "f16", local_rank: 0, world_size: 1, num_instances: instances };
  return dict({
    args: dict({ ...args, ...runs }),
    model: new OrderedDict(model.map((name) => [`module.${name}`, tensors.get(name)! as never])) as never,
    optimizer: dict({ state, param_groups: [dict({ ...group, params: parameters.map((_, i) => i) })] }),
    scheduler: scheduler(step, config, schedule),
    epoch: Math.floor(step / schedule.stepsPerEpoch),
    scaler: dict({
      scale: new Float(scaled(SCALER.scale, INITIAL_SCALE)),
      growth_factor: new Float(GROWTH),
      backoff_factor: new Float(BACKOFF),
      growth_interval: GROWTH_INTERVAL,
      _growth_tracker: scaled(SCALER.growthTracker, 0),
    }),
  });
};

const dict = (entries: Readonly<Record<string, PickleInput>>): PickleInput =>
  new Map(Object.entries(entries));

/** The state of the published schedulers after `step` steps: a cosine, behind a warm-up where there is one. */
const scheduler = (
  step: number,
  config: RecordedConfig,
  schedule: ReturnType<typeof planSchedule>,
): PickleInput => {
  const { warmupSteps, totalSteps, peakRate, warmupMultiplier } = schedule;
  const common = (steps: number, calls: number, rate: number) => ({
    base_lrs: [new Float(peakRate)],
    last_epoch: steps,
    verbose: false,
    _step_count: calls,
    _get_lr_called_within_step: false,
    _last_lr: [new Float(rate)],
  });
  const after = Math.max(0, step - warmupSteps);
  const cosine = dict({
    T_max: totalSteps - warmupSteps,
    eta_min: FLOOR_RATE,
    ...common(after, after + 1, learningRate(Math.max(step, warmupSteps), schedule)),
  });
  if (config.warmupEpoch === 0) return cosine;
  const warming = Math.min(step, warmupSteps);
  return dict({
    multiplier: warmupMultiplier,
    warmup_epoch: warmupSteps,
    finished: false,
    ...common(step, warming + 1, learningRate(warming, schedule)),
    after_scheduler: cosine,
  });
};

/** The modules of the published model, in its order. */
const MODULES = [
  ...["center", "encoder_q", "encoder_k", "projector_q", "projector_k", "grouping_q", "grouping_k"],
  "predictor_slot",
];

/** The state of the published model: student, teacher, predictor and centre, but no optimiser. */
export const publishedState = (config: ModelOptions & { readonly imageSize: number }): StateBuilder => {
  const state = new StateBuilder();
  const images = input("images", [1, config.imageSize, config.imageSize, 3]);
  const own = student(state, null);
  forward(own, "q", images, config);
  forward(teacher(state, null, constant(1)), "k", images, config);
  predictor(
    within(own, "predictor_slot"),
    input("slots", [1, config.dimOut]),
    config,
    constant(Uint32Array.of(1)),
  );
  state.declare("center", {
    role: "buffer",
    shape: [1, config.numPrototypes],
    storage: "same",
    init: { kind: "constant", value: 0 },
  });
  return state;
};

/** The names of a model's tensors in the order of the published code, by which its optimiser numbers parameters. */
export const publishedOrder = (state: StateBuilder): readonly string[] => {
  const place = (name: string) => MODULES.indexOf(name.split(".", 1)[0]);
  return [...checkpointShapes(state).keys()].sort((a, b) => place(a) - place(b)); // stable within a module
};

/** Is it a parameter of the student or of the teacher? */
const isParameter = ({ declared }: StateBuilder, name: string): boolean => {
  const role = declared.get(name)?.role;
  return role === "trained" || typeof role === "object";
};
